package arrowipc_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/internal/driver/codec/arrowipc"
	"github.com/v6d-go/v6d/typed"
)

// limited is an allocator that has 64 MiB, as the daemon's pool has its size.
type limited struct{ memory.Allocator }

func (l limited) Allocate(n int) []byte {
	if n > 64<<20 {
		panic(fmt.Errorf("%d bytes are too many", n))
	}
	return l.Allocator.Allocate(n)
}

func (l limited) Reallocate(n int, b []byte) []byte {
	if n > 64<<20 {
		panic(fmt.Errorf("%d bytes are too many", n))
	}
	return l.Allocator.Reallocate(n, b)
}

func example(t testing.TB) *typed.Table {
	t.Helper()
	s := arrow.NewSchema([]arrow.Field{
		{Name: "i", Type: arrow.PrimitiveTypes.Int64, Nullable: true},
		{Name: "s", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int32), Nullable: true},
		{Name: "d", Type: &arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int8, ValueType: arrow.BinaryTypes.String}, Nullable: true},
	}, nil)
	b, _, err := array.RecordFromJSON(memory.DefaultAllocator, s, strings.NewReader(`[{"i":1,"s":"a","l":[1],"d":"x"},{"i":null,"s":null,"l":null,"d":"y"}]`))
	if err != nil {
		t.Fatal(err)
	}
	return typed.NewTable(s, b, b)
}

func flat(t *typed.Table) string {
	text := ""
	for _, b := range t.Batches {
		text += fmt.Sprintln(b.Columns())
	}
	return text
}

func file(t testing.TB, options ...ipc.Option) []byte {
	t.Helper()
	table := example(t)
	var b bytes.Buffer
	w, err := ipc.NewFileWriter(&b, append(options, ipc.WithSchema(table.Schema))...)
	if err != nil {
		t.Fatal(err)
	}
	for _, batch := range table.Batches {
		if err := w.Write(batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestRoundTrip(t *testing.T) {
	table := example(t)
	var asFile, asStream bytes.Buffer
	if err := arrowipc.Write(&asFile, table); err != nil {
		t.Fatal(err)
	}
	if err := arrowipc.WriteStream(&asStream, table); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"file": asFile.Bytes(), "stream": asStream.Bytes(), "lz4": file(t, ipc.WithLZ4()), "zstd": file(t, ipc.WithZstd())} {
		got, err := arrowipc.Read(b, limited{memory.DefaultAllocator})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if flat(got) != flat(table) {
			t.Errorf("%s: %s became %s", name, flat(table), flat(got))
		}
	}
}

// TestDamaged cuts a file and a stream everywhere, and changes each byte: an
// error, or a table whose arrays are valid, but no panic.
func TestDamaged(t *testing.T) {
	table := example(t)
	var stream bytes.Buffer
	if err := arrowipc.WriteStream(&stream, table); err != nil {
		t.Fatal(err)
	}
	for name, good := range map[string][]byte{"file": file(t), "stream": stream.Bytes()} {
		for i := range good {
			if name == "file" {
				if _, err := arrowipc.Read(good[:i], limited{memory.DefaultAllocator}); err == nil {
					t.Fatalf("a %s of %d of %d bytes was read", name, i, len(good))
				}
			}
			b := bytes.Clone(good)
			b[i] ^= 0xff
			if got, err := arrowipc.Read(b, limited{memory.DefaultAllocator}); err == nil {
				_ = flat(got)
			}
		}
	}
	for text, want := range map[string]string{"": "no Arrow IPC data", "FEA1xxxx": "version 1", "id,name\n": "no Arrow IPC data", "ARROW1\x00\x00": "no Arrow file"} {
		if _, err := arrowipc.Read([]byte(text), limited{memory.DefaultAllocator}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

// TestHugeClaim: a message that claims a terabyte is refused before memory is
// taken for it.
func TestHugeClaim(t *testing.T) {
	good := file(t)
	for _, claim := range [][]byte{{0xff, 0xff, 0xff, 0x7f}, {0, 0, 0, 0x40}} {
		for i := 8; i+8 <= len(good); i += 4 {
			b := bytes.Clone(good)
			copy(b[i:], claim)
			if got, err := arrowipc.Read(b, limited{memory.DefaultAllocator}); err == nil {
				_ = flat(got)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(file(f))
	f.Add(file(f, ipc.WithLZ4()))
	var stream bytes.Buffer
	if err := arrowipc.WriteStream(&stream, example(f)); err != nil {
		f.Fatal(err)
	}
	f.Add(stream.Bytes())
	f.Fuzz(func(_ *testing.T, b []byte) {
		if table, err := arrowipc.Read(b, limited{memory.DefaultAllocator}); err == nil {
			_ = flat(table)
		}
	})
}
