// Package tui is the browser of a daemon and its cluster in a terminal.
//
// Vocabulary: a Source is all that the browser knows of the daemon. A page is one
// screen: a list (objects, names, streams, …), an object, a value, or a text. The
// pages that were opened one from the other are a stack, shown as crumbs; going
// back pops it. A subject is what a page's cursor is on, and what actions are
// about. An action is a command line of v6d: the browser shows it, asks, and has
// the Source run it, so that what it does can be done in a script. A dialog is
// drawn over the page and gets the keys first.
//
// Data flows one way: a key or a message changes the model in Update, which may
// return a command; commands are the only callers of the Source, run in the
// background, and answer with a message that carries the generation of the page
// that asked; answers to what nobody looks at any more are dropped. View only draws.
package tui
