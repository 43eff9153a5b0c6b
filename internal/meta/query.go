package meta

import (
	"context"
	"regexp"
	"slices"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// waiter is a request that waits for objects or a name.
type waiter struct {
	ids  []object.ID
	name string
	done chan struct{}
}

// wake tests the waiting requests again. Called with mu held.
func (t *Tree) wake() {
	for w := range t.waiters {
		if t.satisfied(w) {
			delete(t.waiters, w)
			close(w.done)
		}
	}
}

func (t *Tree) satisfied(w *waiter) bool {
	if w.name != "" {
		_, ok := t.named(w.name)
		return ok
	}
	for _, id := range w.ids {
		if t.objects[id] == nil && (!id.IsBlob() || id != object.EmptyBlob && !t.opts.Blobs.Exists(id)) {
			return false
		}
	}
	return true
}

// wait returns when the waiter is satisfied or ctx ends.
func (t *Tree) wait(ctx context.Context, w *waiter) error {
	t.mu.Lock()
	if t.satisfied(w) {
		t.mu.Unlock()
		return nil
	}
	w.done = make(chan struct{})
	t.waiters[w] = struct{}{}
	t.mu.Unlock()
	select {
	case <-w.done:
		return nil
	case <-ctx.Done():
		t.mu.Lock()
		delete(t.waiters, w)
		t.mu.Unlock()
		return ctx.Err()
	}
}

// AppendObjects appends {"o…": tree, …} of those ids that are known, or null
// when none is. With wait it first waits until all are.
func (t *Tree) AppendObjects(ctx context.Context, b []byte, ids []object.ID, wait bool) ([]byte, error) {
	if wait {
		if err := t.wait(ctx, &waiter{ids: slices.Clone(ids)}); err != nil {
			return b, err
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	start := len(b)
	var seen map[object.ID]struct{} // for long lists only
	if len(ids) > 16 {
		seen = make(map[object.ID]struct{}, len(ids))
	}
	for i, id := range ids {
		if seen == nil && slices.Contains(ids[:i], id) {
			continue
		}
		if seen != nil {
			if _, again := seen[id]; again {
				continue
			}
			seen[id] = struct{}{}
		}
		b = t.appendListed(b, start, id, t.objects[id])
	}
	return closeMap(b, start), nil
}

// appendListed appends `"o…":tree` for one blob, or one object and its entry,
// with the brace or comma before it, or nothing. Called with mu held for
// reading.
func (t *Tree) appendListed(b []byte, start int, id object.ID, e *entry) []byte {
	mark := len(b)
	if mark == start {
		b = append(b, '{')
	} else {
		b = append(b, ',')
	}
	b = append(b, '"')
	b, _ = id.AppendText(b)
	b = append(b, '"', ':')
	if id.IsBlob() {
		size, ok := t.opts.Blobs.Sealed(id)
		if !ok {
			return b[:mark]
		}
		return appendBlob(b, id, t.opts.Instance, size)
	}
	if e == nil {
		return b[:mark]
	}
	b, ok := t.appendEntry(b, e, 0, len(b)+maxTree)
	if !ok {
		return b[:mark]
	}
	return b
}

func closeMap(b []byte, start int) []byte {
	if len(b) == start {
		return append(b, "null"...)
	}
	return append(b, '}')
}

// Exists reports whether an object or blob is known.
func (t *Tree) Exists(id object.ID) bool {
	if id.IsBlob() {
		return t.opts.Blobs.Exists(id)
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.objects[id] != nil
}

// matcher tells which typenames or names a pattern means.
type matcher struct {
	re      *regexp.Regexp
	glob    string
	nothing bool
}

// newMatcher compiles a glob, or a regular expression that must match as a
// whole. An expression that is wrong, or beyond RE2, matches nothing.
func newMatcher(pattern string, regex bool) matcher {
	if !regex {
		return matcher{glob: pattern}
	}
	if _, err := regexp.Compile(pattern); err != nil {
		return matcher{nothing: true} // by itself, lest its brackets pair with ours
	}
	re, err := regexp.Compile(`^(?:` + pattern + `)$`)
	return matcher{re: re, nothing: err != nil}
}

func (m matcher) match(s string) bool {
	switch {
	case m.nothing:
		return false
	case m.re != nil:
		return m.re.MatchString(s)
	}
	return Glob(m.glob, s)
}

// maxGrow is the most memory, in bytes, that a list takes before it needs it.
const maxGrow = 64 << 20

// AppendList appends the trees of at most limit objects whose typename matches,
// in id order, then sealed blobs if the pattern, as a glob, matches theirs.
func (t *Tree) AppendList(b []byte, pattern string, regex bool, limit uint64) []byte {
	m := newMatcher(pattern, regex)
	start := len(b)
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := uint64(0)
	all, there := t.byType(m, 0)
	for e := range all {
		if n >= limit {
			break
		}
		before := len(b)
		if b = t.appendListed(b, start, e.id, e); len(b) > before {
			n++
		}
		if n == 64 { // the rest will not be much different
			rest := min(limit, there) - n
			b = slices.Grow(b, int(min(rest*uint64((len(b)-start)/60), maxGrow)))
		}
	}
	if n < limit && Glob(pattern, BlobType) {
		ids := t.opts.Blobs.SealedIDs()
		slices.Sort(ids)
		for _, id := range ids {
			if n >= limit {
				break
			}
			before := len(b)
			if b = t.appendListed(b, start, id, nil); len(b) > before {
				n++
			}
		}
	}
	return closeMap(b, start)
}

// byType yields the objects above after whose typename matches, in the order of
// their ids, and tells how many have such a typename. Called with mu held for
// reading.
func (t *Tree) byType(m matcher, after object.ID) (all func(func(*entry) bool), there uint64) {
	var sets []*typeIndex
	for _, ti := range t.types {
		if ti.ids.live > 0 && m.match(ti.name) {
			sets = append(sets, ti)
			there += uint64(ti.ids.live)
		}
	}
	all = func(yield func(*entry) bool) {
		switch {
		case len(sets) == 0:
			return
		case len(sets) == len(t.types):
			for _, id := range t.all.ids[t.all.search(after+1):] {
				if e := t.objects[id]; e != nil && !yield(e) {
					return
				}
			}
			return
		}
		heads := make([]int, len(sets))
		for i, s := range sets {
			heads[i] = s.ids.search(after + 1)
		}
		for {
			best := -1
			for i, s := range sets {
				if heads[i] < len(s.ids.ids) && (best < 0 || s.ids.ids[heads[i]] < sets[best].ids.ids[heads[best]]) {
					best = i
				}
			}
			if best < 0 {
				return
			}
			id := sets[best].ids.ids[heads[best]]
			heads[best]++
			if e := t.objects[id]; e != nil && e.typ == sets[best] && !yield(e) {
				return
			}
		}
	}
	return all, there
}

// IsPersistent reports whether an object is visible to the cluster.
func (t *Tree) IsPersistent(id object.ID) (bool, error) {
	if id.IsBlob() {
		return false, nil
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.objects[id]
	if e == nil {
		return false, status.Errorf(status.MetaTreeSubtreeNotExists, "no object %s", id)
	}
	return !e.transient, nil
}

// Owners returns the objects that refer to an object or blob.
func (t *Tree) Owners(id object.ID) []object.ID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.ownersOf(id))
}

// Type returns an object's typename, "" if it is not known.
func (t *Tree) Type(id object.ID) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.objects[id]; e != nil {
		return e.typ.name
	}
	return ""
}

// Row is one object for listings that do not need the tree.
type Row struct {
	ID        object.ID
	Type      string
	Instance  object.InstanceID
	Signature object.Signature
	Transient bool
	Global    bool
	Timestamp int64
	Names     []string
	Labels    wirejson.Value
	Plain     wirejson.Value // {plain fields and blob links}
	Members   int            // objects and blobs directly below
	Bytes     int64          // of the distinct local blobs in the whole tree below; of other instances' objects what they say
	Owned     bool           // another object refers to it
}

// Page returns up to limit rows of objects above after, in id order, whose
// typename and, unless nameGlob is empty, one of whose names match.
// With idsOnly the rows hold nothing but the id.
func (t *Tree) Page(pattern, nameGlob string, after object.ID, limit int, idsOnly bool) (rows []Row, more bool) {
	if pattern == "" {
		pattern = "*"
	}
	m := newMatcher(pattern, false)
	t.mu.RLock()
	defer t.mu.RUnlock()
	byID := map[object.ID][]string{}
	for name, id := range t.names {
		byID[id] = append(byID[id], name)
	}
	all, _ := t.byType(m, after)
	for e := range all {
		names := byID[e.id]
		if nameGlob != "" && !slices.ContainsFunc(names, func(n string) bool { return Glob(nameGlob, n) }) {
			continue
		}
		if len(rows) >= limit {
			return rows, true
		}
		if idsOnly {
			rows = append(rows, Row{ID: e.id})
			continue
		}
		slices.Sort(names)
		rows = append(rows, t.row(e, names))
	}
	return rows, false
}

// Rows returns the rows of those objects that exist, in id order.
func (t *Tree) Rows(ids []object.ID) []Row {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	t.mu.RLock()
	defer t.mu.RUnlock()
	byID := map[object.ID][]string{}
	for name, id := range t.names {
		if _, wanted := slices.BinarySearch(ids, id); wanted {
			byID[id] = append(byID[id], name)
		}
	}
	var rows []Row
	for _, id := range slices.Compact(ids) {
		if e := t.objects[id]; e != nil {
			slices.Sort(byID[id])
			rows = append(rows, t.row(e, byID[id]))
		}
	}
	return rows
}

func (t *Tree) row(e *entry, names []string) Row {
	plain := make([]byte, 0, len(e.plain)+2)
	plain = append(append(append(plain, '{'), e.plain...), '}')
	return Row{
		ID: e.id, Type: e.typ.name, Instance: e.instance, Signature: e.sig, Transient: e.transient, Global: e.global,
		Timestamp: e.timestamp, Names: names, Labels: e.labels, Plain: plain, Members: len(e.members) + len(e.blobs),
		Bytes: t.bytes(e), Owned: len(t.ownersOf(e.id)) > 0,
	}
}

// Bytes returns the bytes of an object as Page lists them; 0 for an unknown one.
func (t *Tree) Bytes(id object.ID) int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if e := t.objects[id]; e != nil {
		return t.bytes(e)
	}
	return 0
}

// bytes sums the distinct local blobs of an object's tree. The size of blobs
// elsewhere is not known here: there the objects' own nbytes counts. Called with
// mu held for reading.
func (t *Tree) bytes(e *entry) int64 {
	elsewhere := func(e *entry) int64 {
		if !e.foreign || e.instance == t.opts.Instance || len(e.members) > 0 {
			return 0
		}
		n, _ := asObject(e.plain).Get("nbytes").Int64()
		return max(n, 0)
	}
	if len(e.members) == 0 && len(e.blobs) <= 1 {
		var n int64
		for _, b := range e.blobs {
			size, _ := t.opts.Blobs.Sealed(b)
			n += size
		}
		return n + elsewhere(e)
	}
	seen := map[object.ID]bool{}
	var sum func(*entry) int64
	sum = func(e *entry) (n int64) {
		if seen[e.id] {
			return 0
		}
		seen[e.id] = true
		n += elsewhere(e)
		for _, b := range e.blobs {
			if !seen[b] {
				seen[b] = true
				size, _ := t.opts.Blobs.Sealed(b)
				n += size
			}
		}
		for _, m := range e.members {
			if c := t.resolve(m); c != nil {
				n += sum(c)
			}
		}
		return n
	}
	return sum(e)
}

// Glob matches as fnmatch(3) does with no flags: * and ? match any character,
// slashes included, [...] a set, and \ quotes. Its time is the product of the
// lengths at worst: clients choose both.
func Glob(pattern, s string) bool {
	star := false
	var afterStar, rest string // what follows the last *, and what it has not taken
	for pattern != "" || s != "" {
		if pattern != "" && pattern[0] == '*' {
			pattern = pattern[1:]
			star, afterStar, rest = true, pattern, s
			continue
		}
		if pattern != "" && s != "" {
			if next, ok := matchOne(pattern, s); ok {
				pattern, s = next, s[1:]
				continue
			}
		}
		// Only the last star can take more: those before it took the least.
		if !star || rest == "" {
			return false
		}
		rest = rest[1:]
		pattern, s = afterStar, rest
	}
	return true
}

// matchOne matches the first character of s with what pattern starts with and
// returns the pattern behind that.
func matchOne(pattern, s string) (next string, ok bool) {
	switch c := pattern[0]; c {
	case '?':
		return pattern[1:], true
	case '[':
		if next, ok, valid := matchSet(pattern, s); valid {
			return next, ok
		}
		return pattern[1:], s[0] == '['
	case '\\':
		if len(pattern) == 1 {
			return "", false
		}
		return pattern[2:], s[0] == pattern[1]
	default:
		return pattern[1:], s[0] == c
	}
}

// matchSet matches one character of s with the set that pattern starts with.
func matchSet(pattern, s string) (rest string, ok, valid bool) {
	i := 1
	negate := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negate {
		i++
	}
	found := false
	for first := true; ; first = false {
		if i >= len(pattern) {
			return "", false, false
		}
		if pattern[i] == ']' && !first {
			break
		}
		lo := pattern[i]
		if lo == '\\' && i+1 < len(pattern) {
			i++
			lo = pattern[i]
		}
		i++
		hi := lo
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			hi = pattern[i+1]
			i += 2
		}
		if s != "" && lo <= s[0] && s[0] <= hi {
			found = true
		}
	}
	return pattern[i+1:], s != "" && found != negate, true
}
