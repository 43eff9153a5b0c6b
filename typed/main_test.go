//go:build linux

package typed_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/config"
	"github.com/v6d-go/v6d/internal/testserver"
	"github.com/v6d-go/v6d/typed"
)

var update = flag.Bool("update", false, "write the golden files")

// connect starts a daemon and returns a client of it.
func connect(t testing.TB) *client.Client {
	t.Helper()
	d := testserver.Start(t, func(c *config.Serve) { c.Size = "64MiB" })
	c, err := client.Dial(t.Context(), client.Options{Socket: d.Socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// recording is an object of the reference client, with the bytes of its blobs.
type recording struct {
	Expression string
	Metadata   map[string]any
	Blobs      map[string]struct{ Hex string }
	PythonGet  map[string]any `json:"python_get"`
}

func recordings(t testing.TB) map[string]recording {
	t.Helper()
	files, err := filepath.Glob("testdata/objects/[a-z]*.json")
	if err != nil || len(files) < 90 {
		t.Fatalf("%d recordings, %v", len(files), err)
	}
	all := map[string]recording{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var r recording
		d := json.NewDecoder(bytes.NewReader(b))
		d.UseNumber()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		if r.Metadata != nil { // some could not be put
			all[strings.TrimSuffix(filepath.Base(f), ".json")] = r
		}
	}
	return all
}

// daemons are the fields that the daemon sets.
var daemons = []string{"id", "typename", "instance_id", "signature", "transient", "global", "__timestamp"}

// tester is a test of any kind.
type tester interface {
	Helper()
	Context() context.Context
	Fatal(args ...any)
}

// restore makes a recorded object again, and returns its id.
func restore(t tester, c *client.Client, r recording) client.ID {
	t.Helper()
	blobs := map[string]client.ID{}
	for text, b := range r.Blobs {
		raw, err := hex.DecodeString(b.Hex)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) == 0 {
			continue
		}
		if blobs[text], err = c.PutBlob(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	var build func(tree map[string]any) *client.Meta
	build = func(tree map[string]any) *client.Meta {
		id := tree["id"].(string)
		if tree["typename"] == client.BlobType {
			if b, ok := blobs[id]; ok {
				return client.BlobMember(b)
			}
			return client.BlobMember(client.EmptyBlob)
		}
		m := client.NewMeta(tree["typename"].(string))
		m.Global, _ = tree["global"].(bool)
		for key, v := range tree {
			switch x := v.(type) {
			case map[string]any:
				m.Add(key, build(x))
			case json.Number:
				if !slices.Contains(daemons, key) {
					m.Set(key, json.RawMessage(x.String()))
				}
			default:
				if !slices.Contains(daemons, key) {
					m.Set(key, x)
				}
			}
		}
		return m
	}
	id, err := typed.NewWriter(c, nil, nil).File(t.Context(), build(r.Metadata))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// show writes a value as text that does not depend on where it lies.
func show(v any) string {
	switch x := v.(type) {
	case typed.Scalar:
		return fmt.Sprintf("scalar %T %v", x.Value, x.Value)
	case *typed.Sequence:
		return fmt.Sprintf("sequence%s", showAll(x.Items))
	case *typed.Pickle:
		d, err := x.Value()
		if err != nil {
			return "pickle " + err.Error()
		}
		return "pickle of " + show(d)
	case *typed.Tensor:
		elements := make([]any, x.Len())
		for i := range elements {
			elements[i] = x.At(i)
		}
		order := ""
		if x.Fortran {
			order = " F"
		}
		if x.DType == typed.Objects && x.Items == nil {
			return fmt.Sprintf("tensor object %v, not decoded", x.Shape)
		}
		return fmt.Sprintf("tensor %s %v%s %v", x.DType, x.Shape, order, elements)
	case arrow.Array:
		if x.Len() > 1<<20 {
			return fmt.Sprintf("%d elements of %s", x.Len(), x.DataType())
		}
		return fmt.Sprintf("%s %v", x.DataType(), x)
	case *arrow.Schema:
		return x.String()
	case arrow.RecordBatch:
		return showTable(typed.NewTable(x.Schema(), x))
	case *typed.Table:
		return showTable(x)
	case *typed.Index:
		return fmt.Sprintf("index %v: %s", x.Name, show(x.Values))
	case *typed.Series:
		return fmt.Sprintf("series %v: %s, %s", x.Name, show(x.Index), show(x.Values))
	case *typed.DataFrame:
		var b strings.Builder
		fmt.Fprintf(&b, "data frame of %d rows, index %s", x.Rows(), show(x.Index))
		for i := range x.Columns {
			fmt.Fprintf(&b, "\n    %s: %s", x.Columns[i].Name(), show(x.Columns[i].Values))
		}
		if table, err := x.Table(); err != nil {
			fmt.Fprintf(&b, "\n    no table: %v", err)
		} else {
			fmt.Fprintf(&b, "\n    as a %s", showTable(table))
		}
		return b.String()
	case *typed.SparseArray:
		d, err := x.Dense()
		if err != nil {
			return err.Error()
		}
		return "sparse " + show(d)
	case *typed.Global:
		return fmt.Sprintf("%s %v %v%s", x.Typename, x.Shape, x.PartitionShape, showAll(x.Parts))
	case *typed.Opaque:
		return fmt.Sprintf("opaque, known: %v %s", x.Known, x.Note)
	case []byte:
		return fmt.Sprintf("bytes %q", x)
	}
	return fmt.Sprintf("%T %v", v, v)
}

func showAll(list []any) string {
	var b strings.Builder
	for _, v := range list {
		fmt.Fprintf(&b, "\n    %s", show(v))
	}
	return b.String()
}

func showTable(t *typed.Table) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table of %d rows in %d batches", t.Rows(), len(t.Batches))
	for i, f := range t.Schema.Fields() {
		fmt.Fprintf(&b, "\n      %s %s:", f.Name, f.Type)
		for _, batch := range t.Batches {
			if batch.NumRows() < 1<<20 {
				fmt.Fprintf(&b, " %v", batch.Column(i))
			}
		}
	}
	return b.String()
}
