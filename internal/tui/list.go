package tui

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// column is one column of a list: how an item looks and sorts there.
type column[T any] struct {
	title string
	width int  // cells it wants; 0: what is left is shared
	least int  // cells below which it is left out on narrow screens
	right bool // numbers
	text  func(*T) string
	rank  func(*T) uint64 // what it sorts by; nil: the text
}

// list is a table of items of which only the visible part is drawn. The cursor
// stays on its item while others come and go; when the item goes, the cursor is on
// nothing until it is moved.
type list[T any] struct {
	columns []column[T] // that are shown
	every   []column[T] // all of them, once some were chosen
	key     func(*T) string
	search  func(b []byte, item *T) []byte // appends what a filter looks at
	hide    func(*T) bool                  // not part of the list; may be nil

	items  []T
	total  int     // items that are part of the list
	shown  []int32 // indexes of those that pass the filter, in the order of the sort
	sortBy int     // column; -1: as they come
	desc   bool
	filter filter
	marks  map[string]bool

	left   string // key at the cursor when the filter was begun
	at     int    // of shown
	on     string // key of the item at the cursor, "" for none
	top    int    // first line drawn, of shown
	scroll int    // first column drawn; of a single column, by how many steps
	widest int    // cells of the texts drawn last, of a single column
	height int    // lines for items

	text  []byte // of the item that a filter looks at
	order []ranked
}

// ranked is an item while it is sorted: by the rank, then the text, then the place.
type ranked struct {
	rank uint64
	text string
	at   int32
}

// filter chooses items by what a person typed. It looks at lower-case texts.
type filter struct {
	text   string
	invert bool
	words  string
	all    [][]byte       // each of the words
	re     *regexp.Regexp // nil: words
	fuzzy  bool
	bad    bool // no valid expression: taken as words
}

// parseFilter reads a filter: words that all have to be there, or a regular expression
// when it looks like one; ! inverts, -f wants letters of a column in this order.
func parseFilter(text string) filter {
	f := filter{text: text}
	rest := strings.TrimSpace(text)
	if strings.HasPrefix(rest, "!") {
		f.invert, rest = true, strings.TrimSpace(rest[1:])
	}
	if after, ok := strings.CutPrefix(rest, "-f "); ok {
		f.fuzzy, rest = true, after
	}
	f.words = strings.ToLower(rest)
	f.all = bytes.Fields([]byte(f.words))
	if !f.fuzzy && strings.ContainsAny(rest, `*+?[]()|^$\`) {
		re, err := lowerCase(rest)
		f.re, f.bad = re, err != nil
	}
	return f
}

// lowerCase compiles an expression for lower-case texts, which is several times
// faster than one that ignores case.
func lowerCase(expr string) (*regexp.Regexp, error) {
	tree, err := syntax.Parse(expr, (syntax.Perl|syntax.FoldCase)&^syntax.OneLine) // ^ and $ are a column's
	if err != nil {
		return nil, err
	}
	var walk func(*syntax.Regexp)
	walk = func(n *syntax.Regexp) {
		if n.Op == syntax.OpLiteral {
			n.Flags &^= syntax.FoldCase
			for i, r := range n.Rune {
				n.Rune[i] = unicode.ToLower(r)
			}
		}
		for _, sub := range n.Sub {
			walk(sub)
		}
	}
	walk(tree)
	return regexp.Compile(tree.String())
}

func (f *filter) on() bool { return f.words != "" }

// narrows reports that what passes f passed another filter, too.
func (f *filter) narrows(other *filter) bool {
	plain := func(f *filter) bool { return !f.invert && !f.fuzzy && f.re == nil }
	if !other.on() {
		return true
	}
	if !plain(f) || !plain(other) {
		return false
	}
	for _, word := range other.all { // what has a longer word has this one
		if !slices.ContainsFunc(f.all, func(w []byte) bool { return bytes.Contains(w, word) }) {
			return false
		}
	}
	return true
}

func (f *filter) match(text []byte) bool {
	var ok bool
	switch {
	case f.re != nil:
		ok = f.re.Match(text)
	case f.fuzzy:
		ok = fuzzy(text, f.words)
	default:
		ok = true
		for _, word := range f.all {
			ok = ok && bytes.Contains(text, word)
		}
	}
	return ok != f.invert
}

// fuzzy reports whether a column has the letters in this order.
func fuzzy(text []byte, letters string) bool {
	for column := range bytes.SplitSeq(text, []byte{'\n'}) {
		if inOrder(column, letters) {
			return true
		}
	}
	return false
}

func inOrder(text []byte, letters string) bool {
	for _, r := range letters {
		i := bytes.IndexRune(text, r)
		if i < 0 {
			return false
		}
		text = text[i+utf8.RuneLen(r):]
	}
	return true
}

// join appends the texts of columns, each on a line.
func join(b []byte, texts ...string) []byte {
	for i, t := range texts {
		if i > 0 {
			b = append(b, '\n')
		}
		b = append(b, t...)
	}
	return b
}

// passes reports whether the filter lets an item through.
func (l *list[T]) passes(item *T) bool {
	if !l.filter.on() {
		return true
	}
	l.text = l.search(l.text[:0], item)
	text, ascii := l.text, true
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			text[i] += 'a' - 'A'
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if !ascii {
		text = bytes.ToLower(text)
	}
	return l.filter.match(text)
}

// setFilter filters anew. An item that passes keeps the cursor; without one it is on
// the first, or, when the filter is taken away, where it was before, or on nothing.
func (l *list[T]) setFilter(text string) {
	before := l.filter
	l.filter = parseFilter(text)
	switch {
	case !before.on():
		l.left = l.on
	case !l.filter.on() && l.on == "": // nothing matched
		l.on = l.left
	}
	if l.filter.narrows(&before) {
		l.shown = slices.DeleteFunc(l.shown, func(i int32) bool { return !l.passes(&l.items[i]) })
		l.find()
	} else {
		l.arrange()
	}
	if l.filter.on() && l.current() == nil {
		l.goTo(0)
	}
}

// set replaces the items.
func (l *list[T]) set(items []T) {
	l.items = items
	l.arrange()
}

// arrange filters and sorts again, and keeps the cursor on its item. Marks go with
// their items.
func (l *list[T]) arrange() {
	l.shown = slices.Grow(l.shown[:0], len(l.items))
	l.total = 0
	marks := map[string]bool{}
	for i := range l.items {
		item := &l.items[i]
		if l.hide != nil && l.hide(item) {
			continue
		}
		l.total++
		if len(l.marks) > 0 {
			if key := l.key(item); l.marks[key] {
				marks[key] = true
			}
		}
		if l.passes(item) {
			l.shown = append(l.shown, int32(i))
		}
	}
	l.marks = marks
	if l.sortBy >= 0 && l.sortBy < len(l.columns) {
		l.sort(&l.columns[l.sortBy])
	}
	l.find()
}

// sort puts what is shown in the order of a column; items that are alike stay in
// the order that they came in.
func (l *list[T]) sort(c *column[T]) {
	l.order = slices.Grow(l.order[:0], len(l.shown))
	for _, i := range l.shown {
		r := ranked{at: i}
		if c.rank != nil {
			r.rank = c.rank(&l.items[i])
		} else {
			r.text = c.text(&l.items[i])
			r.rank = firstBytes(r.text)
		}
		l.order = append(l.order, r)
	}
	sign := 1
	if l.desc {
		sign = -1
	}
	slices.SortFunc(l.order, func(a, b ranked) int {
		switch {
		case a.rank < b.rank:
			return -sign
		case a.rank > b.rank:
			return sign
		}
		if n := strings.Compare(a.text, b.text); n != 0 {
			return n * sign
		}
		return int(a.at - b.at)
	})
	for i := range l.order {
		l.shown[i] = l.order[i].at
	}
	clear(l.order)
}

// firstBytes is a number for the start of a text, in the order of texts.
func firstBytes(text string) uint64 {
	var b [8]byte
	copy(b[:], text)
	return binary.BigEndian.Uint64(b[:])
}

// find puts the cursor back on its item. An item that is gone leaves it where it
// was, on nothing: no action can hit what has moved there.
func (l *list[T]) find() {
	if l.on == "" {
		if l.at == 0 && len(l.shown) > 0 {
			l.goTo(0)
		}
		l.clamp()
		return
	}
	if l.at < len(l.shown) && l.key(&l.items[l.shown[l.at]]) == l.on {
		l.clamp()
		return
	}
	for i, n := range l.shown {
		if l.key(&l.items[n]) == l.on {
			l.top += i - l.at // the line stays where it is on the screen
			l.at = i
			l.clamp()
			return
		}
	}
	l.on = gone
	l.clamp()
}

// gone is the key of a cursor whose item went.
const gone = "\x00gone"

// goTo moves the cursor to a line.
func (l *list[T]) goTo(at int) {
	l.at = min(max(at, 0), max(len(l.shown)-1, 0))
	l.on = ""
	if len(l.shown) > 0 {
		l.on = l.key(&l.items[l.shown[l.at]])
	}
	l.clamp()
}

func (l *list[T]) clamp() {
	l.at = min(l.at, max(len(l.shown)-1, 0))
	if l.height <= 0 {
		return
	}
	l.top = min(max(l.top, l.at-l.height+1), l.at)
	l.top = max(min(l.top, len(l.shown)-l.height), 0)
}

// current returns the item at the cursor, or nil.
func (l *list[T]) current() *T {
	if l.on == gone || l.at >= len(l.shown) {
		return nil
	}
	return &l.items[l.shown[l.at]]
}

// setSort sorts by a column; again reverses.
func (l *list[T]) setSort(column int) {
	if l.sortBy == column {
		l.desc = !l.desc
	} else {
		l.sortBy, l.desc = column, l.columns[column].right
	}
	l.arrange()
}

// mark marks the item at the cursor, or takes the mark away.
func (l *list[T]) mark() {
	if l.current() == nil {
		return
	}
	if l.marks == nil {
		l.marks = map[string]bool{}
	}
	if l.marks[l.on] {
		delete(l.marks, l.on)
	} else {
		l.marks[l.on] = true
	}
	l.goTo(l.at + 1)
}

// marked returns the marked items that still exist.
func (l *list[T]) marked() (items []*T) {
	if len(l.marks) == 0 {
		return nil
	}
	for i := range l.items {
		if l.marks[l.key(&l.items[i])] {
			items = append(items, &l.items[i])
		}
	}
	return items
}

// plan chooses the columns that fit into a width, and how wide they are.
func (l *list[T]) plan(width int) (columns, widths []int) {
	for i := range l.columns {
		if i == 0 || i > l.scroll {
			columns = append(columns, i)
		}
	}
	const gap = 2
	for {
		widths = widths[:0]
		rest, shared := width, 0
		for _, i := range columns {
			c := &l.columns[i]
			w := c.width
			if w == 0 {
				shared++
				w = c.least
			}
			widths = append(widths, w)
			rest -= w + gap
		}
		rest += gap
		if rest >= 0 || len(columns) == 1 {
			for k, i := range columns { // what is left over
				if l.columns[i].width == 0 && rest > 0 {
					n := rest / shared
					widths[k] += n
					rest -= n
					shared--
				}
			}
			if len(columns) == 1 {
				widths[0] = min(widths[0], width)
			}
			return columns, widths
		}
		columns = columns[:len(columns)-1]
	}
}

// scrollStep is by how many cells a list of one column scrolls.
const scrollStep = 10

// draw returns the heading and the visible lines.
func (l *list[T]) draw(t *theme, width, height int, focused bool) []string {
	l.height = max(height-1, 1)
	l.clamp()
	columns, widths := l.plan(width - 2)
	var b strings.Builder
	cells := func(text func(i int) string) string {
		b.Reset()
		for k, i := range columns {
			if k > 0 {
				b.WriteString("  ")
			}
			if l.columns[i].right {
				b.WriteString(right(text(i), widths[k], t.more))
			} else {
				b.WriteString(fit(text(i), widths[k], t.more))
			}
		}
		return fit(b.String(), width-2, t.more)
	}
	single := len(l.columns) == 1
	l.widest = 0
	lines := make([]string, 0, height)
	lines = append(lines, "  "+t.column.Render(cells(func(i int) string {
		title := clean(l.columns[i].title)
		if i != l.sortBy {
			return title
		}
		mark := "+"
		if l.desc {
			mark = "-"
		}
		return fit(title, max(min(ansi.StringWidth(title), widths[slices.Index(columns, i)]-1), 1), t.more) + mark
	})))
	for n := l.top; n < len(l.shown) && len(lines) < height; n++ {
		item := &l.items[l.shown[n]]
		line := cells(func(i int) string {
			text := clean(l.columns[i].text(item))
			if single {
				l.widest = max(l.widest, ansi.StringWidth(text))
				text = ansi.TruncateLeft(text, l.scroll*scrollStep, "")
			}
			return text
		})
		lead := "  "
		key := l.key(item)
		if l.marks[key] {
			lead = "* "
		}
		switch {
		case n == l.at && l.on == key && focused:
			lead = t.point + " "
			if l.marks[key] {
				lead = t.point + "*"
			}
			line = t.cursor.Render(ansi.Strip(line))
		case l.marks[key]:
			line = t.marked.Render(line)
		}
		lines = append(lines, lead+line)
	}
	return lines
}

// byNumber makes a rank of a number.
func byNumber[T any, N ~int | ~int64 | ~uint64](of func(*T) N) func(*T) uint64 {
	var flip uint64
	if ^N(0) < 0 { // signed
		flip = 1 << 63
	}
	return func(item *T) uint64 { return uint64(of(item)) ^ flip }
}
