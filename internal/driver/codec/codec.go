// Package codec finds the format of files and turns them into values of package
// typed, and back.
//
// A format has a name, the extensions of files that have it, and the first bytes
// by which its files are known. Text and tables may be compressed as well, by
// gzip or Zstandard, which is unpacked on the way. The formats themselves are in
// the packages below this one.
package codec

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/klauspost/compress/zstd"

	"github.com/v6d-go/v6d/internal/driver/codec/arrowipc"
	"github.com/v6d-go/v6d/internal/driver/codec/csv"
	"github.com/v6d-go/v6d/internal/driver/codec/json"
	"github.com/v6d-go/v6d/internal/driver/codec/npy"
	"github.com/v6d-go/v6d/internal/driver/codec/parquet"
	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/internal/sys"
	"github.com/v6d-go/v6d/typed"
)

// Format is a file format.
type Format struct {
	Name       string
	Extensions []string
	// Tabular formats hold tables.
	Tabular bool
	magic   string
	decode  func(ctx context.Context, s *Source, o Options) (any, error)
	encode  func(w io.Writer, v any, o WriteOptions) error
}

// Formats are all there are, by name.
var Formats = []Format{
	{"arrow", []string{".arrow", ".feather", ".ipc"}, true, arrowipc.Magic, decodeArrow, tables(func(w io.Writer, t *typed.Table, _ WriteOptions) error { return arrowipc.Write(w, t) })},
	{"arrows", []string{".arrows"}, true, "\xff\xff\xff\xff", decodeArrow, tables(func(w io.Writer, t *typed.Table, _ WriteOptions) error { return arrowipc.WriteStream(w, t) })},
	{"csv", []string{".csv"}, true, "", decodeCSV, tables(func(w io.Writer, t *typed.Table, o WriteOptions) error {
		return csv.Write(w, t, csv.WriteOptions{Delimiter: o.Delimiter, NoHeader: o.NoHeader})
	})},
	{"json", []string{".json"}, false, "", decodeJSON, func(w io.Writer, v any, _ WriteOptions) error { return json.WriteValue(w, v) }},
	{"ndjson", []string{".ndjson", ".jsonl"}, true, "", decodeLines, tables(func(w io.Writer, t *typed.Table, _ WriteOptions) error { return json.WriteTable(w, t) })},
	{"npy", []string{".npy"}, false, "\x93NUMPY", decodeNpy, encodeNpy},
	{"npz", []string{".npz"}, false, "", decodeNpz, encodeNpz},
	{"parquet", []string{".parquet", ".pq"}, true, "PAR1", decodeParquet, tables(func(w io.Writer, t *typed.Table, _ WriteOptions) error { return parquet.Write(w, t) })},
	{"tsv", []string{".tsv", ".tab"}, true, "", decodeTSV, tables(func(w io.Writer, t *typed.Table, o WriteOptions) error {
		return csv.Write(w, t, csv.WriteOptions{Delimiter: '\t', NoHeader: o.NoHeader})
	})},
}

// Names lists the formats.
func Names() []string {
	names := make([]string, len(Formats))
	for i, f := range Formats {
		names[i] = f.Name
	}
	return names
}

// ByName finds a format.
func ByName(name string) (Format, bool) {
	i := slices.IndexFunc(Formats, func(f Format) bool { return f.Name == name })
	if i < 0 {
		return Format{}, false
	}
	return Formats[i], true
}

// ByExtension finds the format of a file by its name. That of a compressed file
// is the one of the name without .gz or .zst.
func ByExtension(name string) (Format, bool) {
	ext := strings.ToLower(filepath.Ext(name))
	if ext == ".gz" || ext == ".zst" {
		ext = strings.ToLower(filepath.Ext(strings.TrimSuffix(name, filepath.Ext(name))))
	}
	i := slices.IndexFunc(Formats, func(f Format) bool { return ext != "" && slices.Contains(f.Extensions, ext) })
	if i < 0 {
		return Format{}, false
	}
	return Formats[i], true
}

// Detect finds the format of data by its first bytes.
func Detect(head []byte) (Format, bool) {
	i := slices.IndexFunc(Formats, func(f Format) bool { return len(f.magic) > 4 && bytes.HasPrefix(head, []byte(f.magic)) })
	if i < 0 && len(head) >= 12 && bytes.HasPrefix(head, []byte("PAR1")) {
		return ByName("parquet")
	}
	if i < 0 {
		return Format{}, false
	}
	return Formats[i], true
}

// Options say how data is decoded. Those of text formats are ignored by others.
type Options struct {
	Columns   []string                  // of tables: only these, in this order
	Types     map[string]arrow.DataType // of columns of text formats
	Delimiter byte
	NoHeader  bool
	NoQuotes  bool
	Latin1    bool
	Nulls     []string
	Pool      *typed.Pool // where values are decoded to; nil for Go's memory
}

func (o *Options) alloc() memory.Allocator {
	if o.Pool == nil {
		return memory.DefaultAllocator
	}
	return o.Pool
}

func (o *Options) take(n int) []byte {
	if o.Pool == nil {
		return make([]byte, n)
	}
	return o.Pool.Take(n)
}

// WriteOptions say how values are encoded.
type WriteOptions struct {
	Delimiter byte
	NoHeader  bool
}

// Source is data that is to be decoded.
type Source struct {
	r    io.Reader
	file *os.File // nil unless it is a regular file, not compressed
	size int64    // -1 if it is not known
}

// NewSource returns data to be decoded; compressed data is unpacked. Progress is
// told of each read; it may be nil.
func NewSource(r io.Reader, progress func(n int)) (*Source, func(), error) {
	s := &Source{r: r, size: -1}
	if f, ok := r.(*os.File); ok {
		if st, err := f.Stat(); err == nil && st.Mode().IsRegular() {
			s.file, s.size = f, st.Size()
		}
	}
	if progress != nil {
		s.r = &counted{s.r, progress}
	}
	buffered := bufio.NewReaderSize(s.r, 1<<20)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	s.r = buffered
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, nil, status.Errorf(status.Invalid, "gzip: %w", err)
		}
		return &Source{r: z, size: -1}, func() {}, nil
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(buffered)
		if err != nil {
			return nil, nil, status.Errorf(status.Invalid, "zstd: %w", err)
		}
		return &Source{r: z, size: -1}, z.Close, nil
	}
	return s, func() {}, nil
}

type counted struct {
	r        io.Reader
	progress func(int)
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.progress(n)
	return n, err
}

// bytes returns all of the data: a regular file is mapped.
func (s *Source) bytes() (b []byte, release func(), err error) {
	if s.file != nil && s.size > 0 {
		if b, err := sys.Map(s.file, int(s.size), false); err == nil {
			return b, func() { _ = sys.Unmap(b) }, nil
		}
	}
	b, err = io.ReadAll(s.r)
	if err != nil {
		return nil, nil, status.Errorf(status.Invalid, "%w", err)
	}
	return b, func() {}, nil
}

// Data is a decoded value and the memory that it lies in.
type Data struct {
	Value any
	close []func()
}

// Close gives the memory back.
func (d *Data) Close() {
	for _, f := range d.close {
		f()
	}
	d.close = nil
}

// Decode decodes data of a format. The value may lie in memory that Close of the
// result gives back.
func (f Format) Decode(ctx context.Context, s *Source, o Options) (d *Data, err error) {
	d = &Data{}
	err = typed.Guard(func() error {
		switch f.Name {
		case "arrow", "arrows", "npz", "parquet":
			b, release, err := s.bytes()
			if err != nil {
				return err
			}
			d.close = append(d.close, release)
			if len(b) == 0 {
				return status.Errorf(status.Invalid, "it is empty")
			}
			s = &Source{r: &mapped{bytes.NewReader(b), b}, size: int64(len(b))}
		}
		d.Value, err = f.decode(ctx, s, o)
		return err
	})
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Binary reports whether a terminal cannot show the format.
func (f Format) Binary() bool {
	switch f.Name {
	case "csv", "tsv", "json", "ndjson":
		return false
	}
	return true
}

// Encode writes a value.
func (f Format) Encode(w io.Writer, v any, o WriteOptions) error { return f.encode(w, v, o) }

func decodeArrow(_ context.Context, s *Source, o Options) (any, error) {
	t, err := arrowipc.Read(s.r.(*mapped).b, o.alloc())
	if err != nil || o.Columns == nil {
		return t, err
	}
	return t.Select(o.Columns)
}

// mapped is a reader of what is in memory already.
type mapped struct {
	*bytes.Reader
	b []byte
}

func decodeParquet(ctx context.Context, s *Source, o Options) (any, error) {
	return parquet.Read(ctx, s.r.(io.ReaderAt), s.size, parquet.Options{Columns: o.Columns, Alloc: o.alloc()})
}

func decodeCSV(ctx context.Context, s *Source, o Options) (any, error) {
	return csv.Read(ctx, s.r, csv.Options{
		Delimiter: o.Delimiter, NoQuotes: o.NoQuotes, NoHeader: o.NoHeader, Columns: o.Columns, Types: o.Types,
		Nulls: o.Nulls, Latin1: o.Latin1, Size: s.size, Sample: s.sample(), Alloc: o.alloc(),
	})
}

func decodeTSV(ctx context.Context, s *Source, o Options) (any, error) {
	if o.Delimiter == 0 {
		o.Delimiter = '\t'
	}
	return decodeCSV(ctx, s, o)
}

// Where a large file of text is looked at.
const (
	samples   = 16
	sampleLen = 64 << 10
)

// sample returns pieces of whole lines from all over a regular file.
func (s *Source) sample() func(yield func([]byte) bool) {
	if s.file == nil || s.size < 4*samples*sampleLen {
		return nil
	}
	return func(yield func([]byte) bool) {
		for i := range int64(samples) {
			b := make([]byte, sampleLen)
			n, err := s.file.ReadAt(b, min(s.size/samples*(i+1), s.size-sampleLen))
			if err != nil && !errors.Is(err, io.EOF) {
				return
			}
			b = b[:n]
			first, last := bytes.IndexByte(b, '\n'), bytes.LastIndexByte(b, '\n')
			if first >= 0 && last > first && !yield(b[first+1:last+1]) {
				return
			}
		}
	}
}

func decodeJSON(_ context.Context, s *Source, _ Options) (any, error) { return json.ReadValue(s.r) }

func decodeLines(_ context.Context, s *Source, o Options) (any, error) {
	return json.ReadTable(s.r, json.Options{Columns: o.Columns, Types: o.Types, Alloc: o.alloc()})
}

func decodeNpy(_ context.Context, s *Source, o Options) (any, error) {
	if s.size < 0 {
		return npy.Read(s.r, o.take)
	}
	return npy.Read(&measured{s.r, s.size}, o.take)
}

// measured is a reader that knows how much is left, so that what a file claims
// to hold is not believed.
type measured struct {
	io.Reader
	left int64
}

func (m *measured) Read(b []byte) (int, error) {
	n, err := m.Reader.Read(b)
	m.left -= int64(n)
	return n, err
}

// Len returns how many bytes are left.
func (m *measured) Len() int { return int(max(m.left, 0)) }

func decodeNpz(_ context.Context, s *Source, o Options) (any, error) {
	return npy.ReadZip(s.r.(io.ReaderAt), s.size, o.take)
}

// tables makes an encoder of tables one of all that can be shown as a table.
func tables(encode func(w io.Writer, t *typed.Table, o WriteOptions) error) func(io.Writer, any, WriteOptions) error {
	return func(w io.Writer, v any, o WriteOptions) error {
		t, err := Table(v)
		if err != nil {
			return err
		}
		return encode(w, t, o)
	}
}

// Table returns a value as a table: tables, record batches, data frames, series,
// indexes, Arrow arrays, tensors of one or two dimensions, and the parts of a
// global data frame that are here.
func Table(v any) (*typed.Table, error) {
	switch x := v.(type) {
	case *typed.Table:
		return x, nil
	case arrow.RecordBatch:
		return typed.NewTable(x.Schema(), x), nil
	case *typed.DataFrame:
		return x.Table()
	case *typed.Series:
		return x.Table()
	case *typed.Tensor:
		return x.Table()
	case *typed.Index:
		return (&typed.Series{Name: x.Name, Values: x.Values}).Table()
	case *typed.SparseArray:
		d, err := x.Dense()
		if err != nil {
			return nil, err
		}
		return d.Table()
	case arrow.Array:
		s := arrow.NewSchema([]arrow.Field{{Name: "0", Type: x.DataType(), Nullable: true}}, nil)
		return typed.NewTable(s, array.NewRecordBatch(s, []arrow.Array{x}, int64(x.Len()))), nil
	case *typed.Global:
		return parts(x)
	}
	return nil, status.Errorf(status.NotImplemented, "%s is no table", describe(v)).WithHint("--format json writes every value that can be read")
}

// parts puts the parts of a global data frame below each other.
func parts(g *typed.Global) (*typed.Table, error) {
	var t *typed.Table
	for i, part := range g.Parts {
		if a, ok := part.(*typed.Absent); ok {
			return nil, status.Errorf(status.ObjectNotExists, "part %d, %s, lies on instance %d", i, a.ID, a.Instance).
				WithHint("--fetch gets it from there")
		}
		p, err := Table(part)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i, err)
		}
		switch {
		case t == nil:
			t = p
		case !typed.SameColumns(t.Schema, p.Schema):
			return nil, status.Errorf(status.Invalid, "part %d has other columns than the first", i)
		default:
			t.Batches = append(t.Batches, p.Batches...)
		}
	}
	if t == nil {
		return nil, status.Errorf(status.Invalid, "it has no parts")
	}
	return t, nil
}

// describe names a kind of value.
func describe(v any) string {
	switch x := v.(type) {
	case typed.Scalar:
		return "a scalar"
	case *typed.Sequence:
		return "a sequence"
	case *typed.Pickle:
		return "a pickle"
	case *typed.Sparse:
		return "a sparse matrix"
	case []byte:
		return "a blob"
	case *typed.Opaque:
		return "a " + x.Meta.Typename
	case *arrow.Schema:
		return "a schema"
	case *typed.Table, arrow.RecordBatch:
		return "a table"
	case *typed.DataFrame:
		return "a data frame"
	case *typed.Tensor:
		return fmt.Sprintf("a tensor of the shape %v", x.Shape)
	case *typed.Global:
		return "a global object"
	}
	return fmt.Sprintf("a %T", v)
}

func encodeNpy(w io.Writer, v any, _ WriteOptions) error {
	switch x := v.(type) {
	case *typed.Tensor:
		return npy.Write(w, x)
	case *typed.Series:
		return npy.Write(w, x.Values)
	case *typed.Index:
		return npy.Write(w, x.Values)
	case *typed.SparseArray:
		d, err := x.Dense()
		if err != nil {
			return err
		}
		return npy.Write(w, d)
	case arrow.Array:
		t, err := typed.TensorOf(x)
		if err != nil {
			return err
		}
		return npy.Write(w, t)
	}
	return status.Errorf(status.Invalid, "%s is no array", describe(v)).WithHint("tables are written as parquet, csv, arrow or ndjson")
}

func encodeNpz(w io.Writer, v any, _ WriteOptions) error {
	switch x := v.(type) {
	case *typed.Sequence:
		return npy.WriteZip(w, x)
	case *typed.Tensor:
		return npy.WriteZip(w, &typed.Sequence{Items: []any{x}})
	}
	return status.Errorf(status.Invalid, "%s is no sequence of arrays", describe(v))
}

// Faults makes the end of a mapped file that somebody truncates an error
// instead of the end of the program, for as long as f runs.
func Faults(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch r := recover().(type) {
		case nil:
		case interface{ Addr() uintptr }:
			err = status.Errorf(status.IOError, "memory cannot be read any more: was the file truncated meanwhile?")
		default:
			err = typed.Recovered(r, "the data is damaged")
		}
	}()
	return f()
}
