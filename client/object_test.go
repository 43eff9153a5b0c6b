//go:build linux

package client_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/v6d-go/v6d/client"
)

// put makes an object with a blob of its own.
func put(t testing.TB, c *client.Client, typename string) (id, blob client.ID) {
	t.Helper()
	blob = ok(c.PutBlob(t.Context(), []byte(typename)))(t)
	return ok(c.CreateObject(t.Context(), client.NewMeta(typename).Add("buffer_", client.BlobMember(blob))))(t), blob
}

// unique makes a typename that no other test uses.
func unique(t testing.TB) string { return fmt.Sprintf("%s::%d", t.Name(), time.Now().UnixNano()) }

func (d daemon) exist(t testing.TB, ids ...client.ID) []bool {
	t.Helper()
	c := d.connect(t)
	defer c.Close()
	out := make([]bool, len(ids))
	for i, id := range ids {
		out[i] = ok(c.Exists(t.Context(), id))(t)
	}
	return out
}

// Every kind of field comes back as it was set.
func testMeta(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	m := client.NewMeta(unique(t)).
		Set("text", "plain \"quoted\" ü 😀 \u0000").Set("empty", "").
		Set("int", -5).Set("u64", uint64(math.MaxUint64)).Set("i64", int64(math.MinInt64)).
		Set("float", 1.25).Set("yes", true).Set("nothing", nil).
		Set("list_", []int{2, 3}).Set("map_", map[string]string{"k": "v"}).
		Set("raw", json.RawMessage(`[1,{"a":2}]`)).Set("rawobject", json.RawMessage(`{"a":2}`)).
		Set("twice", 1).Set("twice", 2)
	id := ok(c.CreateObject(ctx, m))(t)
	got := ok(d.connect(t).GetObject(ctx, id))(t)
	for key, want := range map[string]string{
		"int": "-5", "u64": "18446744073709551615", "i64": "-9223372036854775808", "float": "1.25", "yes": "true", "nothing": "null",
		"list_": `"[2,3]"`, "raw": `[1,{"a":2}]`, "twice": "2", "empty": `""`,
	} {
		if raw := string(got.Raw(key)); raw != want {
			t.Errorf("field %s came back as %s, want %s", key, raw, want)
		}
	}
	if text, isText := got.Text("text"); !isText || text != "plain \"quoted\" ü 😀 \u0000" {
		t.Errorf("text came back as %q", text)
	}
	if text, isText := got.Text("rawobject"); !isText || text != `{"a":2}` {
		t.Errorf("a raw object came back as %q, want its text", text)
	}
	if n, isInt := got.Int("int"); !isInt || n != -5 {
		t.Errorf("int came back as %d", n)
	}
	if _, isInt := got.Int("float"); isInt {
		t.Error("1.25 counts as a whole number")
	}
	if _, isText := got.Text("int"); isText {
		t.Error("-5 counts as text")
	}
	var list []int
	must(t, got.JSON("list_", &list))
	if !slices.Equal(list, []int{2, 3}) {
		t.Errorf("the list came back as %v", list)
	}
	if err := got.JSON("text", &list); err == nil {
		t.Error("text that is no JSON was decoded")
	}
	if err := got.JSON("absent", &list); err == nil {
		t.Error("an absent field was decoded")
	}
	if got.Raw("absent") != nil || got.Member("absent") != nil {
		t.Error("an absent key is there")
	}
	if !slices.Contains(got.Keys(), "float") || slices.Contains(got.Keys(), "typename") {
		t.Errorf("the plain fields are %v", got.Keys())
	}
}

func testCreateObject(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	typename := unique(t)
	before := time.Now().Add(-time.Minute)
	inner, blob := put(t, c, typename+"-inner")
	m := client.NewMeta(typename).Add("child", client.BlobMember(blob)).AddObject("child", inner).
		AddObject("same", blob).Add("none", client.BlobMember(client.EmptyBlob))
	id := ok(c.CreateObject(ctx, m))(t)
	if id.IsBlob() || m.ID != id || m.Signature == 0 || m.InstanceID != c.Info().InstanceID {
		t.Errorf("object %s: the metadata says %s, signature %s, instance %s", id, m.ID, m.Signature, m.InstanceID)
	}
	got := ok(c.GetObject(ctx, id))(t)
	if got.ID != id || got.Typename != typename || got.Signature != m.Signature || !got.Transient || got.Global || got.IsBlob() {
		t.Errorf("got %+v", got)
	}
	if got.Time.Before(before) || got.Time.After(time.Now().Add(time.Minute)) {
		t.Errorf("created at %v", got.Time)
	}
	child := got.Member("child")
	if child == nil || child.ID != inner || child.Typename != typename+"-inner" || child.Member("buffer_").ID != blob {
		t.Errorf("the child came back as %+v", child)
	}
	if b := got.Member("same"); b == nil || b.ID != blob || !b.IsBlob() {
		t.Errorf("a blob added by id came back as %+v", b)
	}
	if want := []client.ID{blob, client.EmptyBlob}; !sameIDs(got.Blobs(), want) {
		t.Errorf("the tree's blobs are %v, want %v", got.Blobs(), want)
	}
	var keys []string
	for key := range got.Members {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if !slices.Equal(keys, []string{"child", "none", "same"}) {
		t.Errorf("the members are %v", keys)
	}
	// A tree that was got can be a member as it is.
	outer := ok(c.CreateObject(ctx, client.NewMeta(typename).Add("tree", got)))(t)
	if tree := ok(c.GetObject(ctx, outer))(t).Member("tree"); tree.ID != id || tree.Member("child").ID != inner {
		t.Errorf("the member came back as %+v", tree)
	}
	if text := ok(json.Marshal(got))(t); !json.Valid(text) {
		t.Errorf("not JSON: %s", text)
	}
	_, err := c.CreateObject(ctx, client.NewMeta(typename).AddObject("child", 12345))
	if err == nil {
		t.Error("an object with an unknown member was filed")
	}
	_, err = c.CreateObject(ctx, client.NewMeta(client.BlobType))
	if err == nil {
		t.Error("a blob was filed as an object")
	}
	_, err = c.GetObject(ctx, 12345)
	wantErr(t, err, client.NotExist)
}

func sameIDs(a, b []client.ID) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func testCreateObjects(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	typename := unique(t)
	list := []*client.Meta{client.NewMeta(typename).Set("i", 0), client.NewMeta(typename).Set("i", 1), client.NewMeta(typename).Set("i", 2)}
	ids := ok(c.CreateObjects(ctx, list))(t)
	for i, m := range ok(c.GetObjects(ctx, ids, client.GetOptions{}))(t) {
		if n, _ := m.Int("i"); int(n) != i || m.ID != ids[i] || list[i].ID != ids[i] || list[i].Signature != m.Signature {
			t.Errorf("object %d came back as %+v", i, m)
		}
	}
	if ids := ok(c.CreateObjects(ctx, nil))(t); len(ids) != 0 {
		t.Errorf("no objects became %v", ids)
	}
	_, err := c.CreateObjects(ctx, []*client.Meta{client.NewMeta(typename), client.NewMeta(typename).AddObject("child", 12345)})
	if err == nil {
		t.Fatal("an unknown member was accepted")
	}
	if n := len(ok(c.ListObjects(ctx, typename, false, 10))(t)); n != 3 && d.v6d() {
		t.Errorf("of two objects, one wrong, some were filed: %d of the type, want 3", n)
	}
}

func testGetObjects(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	a, _ := put(t, c, unique(t))
	b, blob := put(t, c, unique(t))
	list := ok(c.GetObjects(ctx, []client.ID{b, 12345, a, b}, client.GetOptions{Sync: true}))(t)
	var got []client.ID
	for _, m := range list {
		got = append(got, m.ID)
	}
	if !slices.Equal(got, []client.ID{b, a, b}) {
		t.Errorf("got %v, want %v", got, []client.ID{b, a, b})
	}
	if list := ok(c.GetObjects(ctx, []client.ID{12345}, client.GetOptions{}))(t); len(list) != 0 {
		t.Errorf("an unknown object came back as %v", list)
	}
	if list := ok(c.GetObjects(ctx, nil, client.GetOptions{}))(t); len(list) != 0 {
		t.Errorf("no ids gave %v", list)
	}
	if m := ok(c.GetObject(ctx, blob))(t); !m.IsBlob() || m.ID != blob {
		t.Errorf("a blob's metadata is %+v", m)
	}
}

// A get that waits is answered at once when everything exists, and not before.
// (Nobody can choose or foretell an id, so that one which comes later can only
// be waited for in a cluster.)
func testGetObjectsWait(t *testing.T, d daemon) {
	c := d.connect(t)
	there, blob := put(t, c, unique(t))
	if list := ok(c.GetObjects(t.Context(), []client.ID{there, blob}, client.GetOptions{Wait: true}))(t); len(list) != 2 {
		t.Errorf("waiting for two that exist gave %d", len(list))
	}
	ctx, stop := stoppable(t)
	done := make(chan error, 1)
	go func() {
		_, err := c.GetObjects(ctx, []client.ID{there, 12345}, client.GetOptions{Wait: true})
		done <- err
	}()
	select {
	case err := <-done:
		t.Errorf("waiting for an unknown object ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	stop()
	wantErr(t, <-done, errStop)
}

func testListObjects(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	typename := unique(t)
	var ids []client.ID
	for _, suffix := range []string{"<a>", "<b>", "<a/c>"} {
		id, _ := put(t, c, typename+suffix)
		ids = append(ids, id)
	}
	for _, tt := range []struct {
		pattern string
		regex   bool
		limit   int
		want    []client.ID
	}{
		{typename + "*", false, 10, ids},
		{typename + "*", false, 2, ids[:2]},
		{typename + "*", false, 0, nil},
		{typename + "<a*>", false, 10, []client.ID{ids[0], ids[2]}},
		{typename + "<[ab]>", false, 10, ids[:2]},
		{typename + "<?>", false, 10, ids[:2]},
		{typename, false, 10, nil},
		{typename + "<(a|b)>", true, 10, ids[:2]},
		{typename, true, 10, nil}, // as a whole
		{typename + "(", true, 10, nil},
	} {
		var got []client.ID
		for _, m := range ok(c.ListObjects(ctx, tt.pattern, tt.regex, tt.limit))(t) {
			got = append(got, m.ID)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("list %q, regex %v, limit %d: %v, want %v", tt.pattern, tt.regex, tt.limit, got, tt.want)
		}
	}
}

func testLabel(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	id, _ := put(t, c, unique(t))
	if m := ok(c.GetObject(ctx, id))(t); m.Labels != nil {
		t.Errorf("a new object has labels %v", m.Labels)
	}
	must(t, c.Label(ctx, id, map[string]string{"a": "1", "b": "2"}))
	must(t, c.Label(ctx, id, map[string]string{"b": "ü/~", "c": ""}))
	must(t, c.Label(ctx, id, nil))
	if m := ok(c.GetObject(ctx, id))(t); len(m.Labels) != 3 || m.Labels["a"] != "1" || m.Labels["b"] != "ü/~" || m.Labels["c"] != "" {
		t.Errorf("the labels are %v", m.Labels)
	}
	wantErr(t, c.Label(ctx, 12345, map[string]string{"a": "1"}), client.NotExist)
}

func testShallowCopy(t *testing.T, d daemon) {
	ctx := t.Context()
	c := d.connect(t)
	blob := ok(c.PutBlob(ctx, []byte("b")))(t)
	src := ok(c.CreateObject(ctx, client.NewMeta(unique(t)).Set("a", 1).Set("b", "x").Add("buffer_", client.BlobMember(blob))))(t)
	id := ok(c.ShallowCopy(ctx, src, map[string]any{"b": "y", "n": 7, "list": []int{1}}))(t)
	if id == src {
		t.Fatal("the copy has the same id")
	}
	m := ok(c.GetObject(ctx, id))(t)
	b, _ := m.Text("b")
	list, _ := m.Text("list")
	if string(m.Raw("a")) != "1" || b != "y" || string(m.Raw("n")) != "7" || list != "[1]" || m.Member("buffer_").ID != blob {
		t.Errorf("the copy is %s", ok(json.Marshal(m))(t))
	}
	plain := ok(c.ShallowCopy(ctx, src, nil))(t)
	must(t, c.Delete(ctx, []client.ID{src}, client.DeleteOptions{}))
	if got := d.exist(t, src, id, plain, blob); !slices.Equal(got, []bool{false, true, true, true}) {
		t.Errorf("after the source was deleted, source, copies and blob exist: %v", got)
	}
	if _, err := c.ShallowCopy(ctx, 12345, nil); err == nil {
		t.Error("an unknown object was copied")
	}
}
