package meta

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// contents returns the metadata of all objects in the recordings.
func contents(t testing.TB) (out [][]byte) {
	files, err := filepath.Glob("../../interop/replay/testdata/vectors/*.jsonl")
	if err != nil || len(files) == 0 {
		t.Fatalf("recordings: %v, %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var rec struct {
				JSON struct {
					Type     string
					Content  json.RawMessage
					Contents []json.RawMessage
				}
			}
			if json.Unmarshal(line, &rec) != nil || rec.JSON.Type != "create_data_request" && rec.JSON.Type != "create_datas_request" {
				continue
			}
			for _, c := range append(rec.JSON.Contents, rec.JSON.Content) {
				if len(c) > 0 {
					out = append(out, c)
				}
			}
		}
	}
	return out
}

func fuzzTree() *Tree {
	blobs := fakeBlobs{1<<63 | 5: 10, 1<<63 | 6: -1}
	return New(Options{IDs: object.NewGenerator(0), Blobs: blobs})
}

// copied returns a tree that is made from a snapshot of another.
func copied(t *testing.T, tree *Tree) *Tree {
	next := fuzzTree()
	tree.Lock()
	defer tree.Unlock()
	if err := tree.Snapshot(func(p []byte) error { _, err := next.Replay(p); return err }); err != nil {
		t.Fatalf("replay of a snapshot: %v", err)
	}
	return next
}

// FuzzCreate makes an object from any metadata. What is accepted can be read
// by any JSON library, survives a crash byte by byte, and can be deleted without
// a trace. The second input is replayed as a record of a journal: it may be
// refused, no more.
func FuzzCreate(f *testing.F) {
	for _, c := range contents(f) {
		f.Add(c, []byte{recOps, 0, 1})
	}
	for _, c := range refused {
		f.Add([]byte(c.content), []byte(nil))
	}
	seed := fuzzTree()
	mustCreate(f, seed, with(1))
	if _, err := seed.ShallowCopy(f.Context(), 1, nil); err != nil {
		f.Fatal(err)
	}
	_ = seed.Snapshot(func(p []byte) error { f.Add([]byte("{}"), slices.Clone(p)); return nil })
	f.Add([]byte(`{"typename":"t","instance_id":0,"a":[[{"b":{}}]],"k\u0000\"":"\ud83d\ude00","m":{"id":"o1"},"g":1e308}`), []byte{recOps, 0, 2, byte(opUnname), 0})
	f.Fuzz(func(t *testing.T, content, record []byte) {
		if len(content) > 1<<14 {
			return
		}
		if len(record) > 0 {
			tree := fuzzTree()
			if _, err := tree.Replay(record); err == nil {
				tree.AppendList(nil, "*", false, 1000)
				copied(t, tree)
			}
		}
		v, err := wirejson.Parse(content)
		if err != nil {
			return
		}
		tree := fuzzTree()
		mustCreate(t, tree, wirejson.Value(`{"typename":"t","instance_id":0,"m":{"id":"o1","typename":"u","instance_id":0}}`))
		before := tree.AllIDs()
		made, err := tree.Create([]wirejson.Value{v, v})
		if err != nil {
			if !slices.Equal(before, tree.AllIDs()) || len(tree.types) != 2 {
				t.Fatalf("%s is refused (%v), but leaves something", content, err)
			}
			return
		}
		text, err := tree.AppendObjects(t.Context(), nil, tree.AllIDs(), false)
		if err != nil {
			t.Fatal(err)
		}
		trees := map[string]map[string]any{}
		if err := json.Unmarshal(text, &trees); err != nil {
			t.Fatalf("%s comes back as %s: %v", content, text, err)
		}
		for _, m := range made {
			if trees[m.ID.String()]["id"] != m.ID.String() {
				t.Fatalf("%s is not there in %s", m.ID, text)
			}
		}
		next := copied(t, tree)
		if again, _ := next.AppendObjects(t.Context(), nil, tree.AllIDs(), false); !bytes.Equal(again, text) {
			t.Fatalf("after a snapshot\n%s\nbefore\n%s", again, text)
		}
		if _, err := next.Delete(t.Context(), next.AllIDs(), DeleteOptions{Force: true, Deep: true}, func([]object.ID) {}); err != nil {
			t.Fatal(err)
		}
		if next.Len() > 0 || len(next.owners) > 0 || len(next.types) > 0 || len(next.sigs) > 0 {
			t.Fatalf("deleted, but %v %v %v are left", next.owners, next.types, next.sigs)
		}
	})
}
