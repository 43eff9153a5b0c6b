package tui

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// column is one column of a list: how an item looks and sorts there.
type column[T any] struct {
	title string
	width int  // cells it wants; 0: what is left is shared
	least int  // cells below which it is left out on narrow screens
	right bool // numbers
	text  func(*T) string
	cmp   func(a, b *T) int // nil: by text
}

// list is a table of items of which only the visible part is drawn. The cursor
// stays on its item while others come and go; when the item goes, the cursor is on
// nothing until it is moved.
type list[T any] struct {
	columns []column[T]
	key     func(*T) string
	search  func(*T) string // what a filter looks at

	items  []T
	shown  []int32 // indexes of items that pass the filter, in the order of the sort
	sortBy int     // column; -1: as they come
	desc   bool
	filter filter
	marks  map[string]bool

	at     int    // of shown
	on     string // key of the item at the cursor, "" for none
	top    int    // first line drawn, of shown
	scroll int    // first column drawn
	height int    // lines for items
}

// filter chooses items by what a person typed.
type filter struct {
	text   string
	invert bool
	words  string         // lower case
	re     *regexp.Regexp // nil: words
	fuzzy  bool
	bad    bool // no valid expression: taken as words
}

// parseFilter reads a filter: words, or a regular expression when it looks like
// one; ! inverts, -f matches letters in this order.
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
	if !f.fuzzy && strings.ContainsAny(rest, `*+?[]()|^$\`) {
		re, err := regexp.Compile("(?i)" + rest)
		f.re, f.bad = re, err != nil
	}
	return f
}

func (f *filter) on() bool { return f.words != "" }

func (f *filter) match(text string) bool {
	if !f.on() {
		return true
	}
	var ok bool
	switch {
	case f.re != nil:
		ok = f.re.MatchString(text)
	case f.fuzzy:
		ok = fuzzy(strings.ToLower(text), f.words)
	default:
		ok = containsFold(text, f.words)
	}
	return ok != f.invert
}

// containsFold is strings.Contains for a lower-case word, without making a
// lower-case copy of ASCII texts.
func containsFold(text, word string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return strings.Contains(strings.ToLower(text), word)
		}
	}
	if len(word) == 0 {
		return true
	}
	first := word[0]
	for i := 0; i+len(word) <= len(text); i++ {
		if lower(text[i]) != first {
			continue
		}
		j := 1
		for j < len(word) && lower(text[i+j]) == word[j] {
			j++
		}
		if j == len(word) {
			return true
		}
	}
	return false
}

func lower(b byte) byte {
	if 'A' <= b && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

func fuzzy(text, letters string) bool {
	for _, r := range letters {
		i := strings.IndexRune(text, r)
		if i < 0 {
			return false
		}
		text = text[i+len(string(r)):]
	}
	return true
}

// set replaces the items.
func (l *list[T]) set(items []T) {
	l.items = items
	l.arrange()
}

// arrange filters and sorts again, and keeps the cursor on its item.
func (l *list[T]) arrange() {
	l.shown = slices.Grow(l.shown[:0], len(l.items))
	for i := range l.items {
		if !l.filter.on() || l.filter.match(l.search(&l.items[i])) {
			l.shown = append(l.shown, int32(i))
		}
	}
	if l.sortBy >= 0 && l.sortBy < len(l.columns) {
		c := &l.columns[l.sortBy]
		by := c.cmp
		if by == nil {
			by = func(a, b *T) int { return strings.Compare(c.text(a), c.text(b)) }
		}
		slices.SortStableFunc(l.shown, func(a, b int32) int {
			n := by(&l.items[a], &l.items[b])
			if l.desc {
				return -n
			}
			return n
		})
	}
	l.find()
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
	lines := make([]string, 0, height)
	lines = append(lines, "  "+t.column.Render(cells(func(i int) string {
		title := l.columns[i].title
		if i == l.sortBy {
			if l.desc {
				return title + "-"
			}
			return title + "+"
		}
		return title
	})))
	for n := l.top; n < len(l.shown) && len(lines) < height; n++ {
		item := &l.items[l.shown[n]]
		line := cells(func(i int) string { return clean(l.columns[i].text(item)) })
		lead := "  "
		key := l.key(item)
		if l.marks[key] {
			lead = "* "
		}
		switch {
		case n == l.at && l.on == key && focused:
			lead = t.point + lead[1:]
			line = t.cursor.Render(ansi.Strip(line))
		case l.marks[key]:
			line = t.marked.Render(line)
		}
		lines = append(lines, lead+line)
	}
	return lines
}

func byNumber[T any, N cmp.Ordered](of func(*T) N) func(a, b *T) int {
	return func(a, b *T) int { return cmp.Compare(of(a), of(b)) }
}
