package client

// WatchContext makes the end of a context interrupt the connection, as every
// call does, until stop is called.
var WatchContext = (*Client).watch
