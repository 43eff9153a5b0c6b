// Package parquet is the codec between Apache Parquet files and tables, by the
// Arrow project's library.
//
// A file is row groups of column chunks. Each row group becomes a record batch;
// the column chunks are decoded side by side, into memory of the caller's
// allocator where the library lets us: values are, pages on their way are not.
package parquet

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// Options say what is read.
type Options struct {
	Columns []string // only these, in this order; nil for all
	Alloc   memory.Allocator
}

// Read reads a file of size bytes.
func Read(ctx context.Context, in io.ReaderAt, size int64, o Options) (t *typed.Table, err error) {
	defer func() {
		if r := recover(); r != nil {
			t, err = nil, typed.Recovered(r, "the file is damaged")
		}
	}()
	if o.Alloc == nil {
		o.Alloc = memory.DefaultAllocator
	}
	f, err := file.NewParquetReader(io.NewSectionReader(in, 0, size))
	if err != nil {
		return nil, status.Errorf(status.Invalid, "it is no Parquet file that can be read, or a truncated one: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	props := pqarrow.ArrowReadProperties{}
	for i := range f.MetaData().Schema.NumColumns() {
		props.SetForceLarge(i, true)
	}
	r, err := pqarrow.NewFileReader(f, props, o.Alloc)
	if err != nil {
		return nil, status.Errorf(status.Invalid, "%w", err)
	}
	schema, err := r.Schema()
	if err != nil {
		return nil, status.Errorf(status.Invalid, "%w", err)
	}
	fields, err := choose(schema, o.Columns)
	if err != nil {
		return nil, err
	}
	for i := range r.Manifest.Fields { // the library reads durations as numbers only
		if f := r.Manifest.Fields[i].Field; f != nil && f.Type.ID() == arrow.DURATION {
			f.Type = arrow.PrimitiveTypes.Int64
		}
	}
	return read(ctx, r, schema, fields, o.Alloc)
}

// choose returns the places of the columns that are wanted, all of which have to
// be of types that can be stored.
func choose(s *arrow.Schema, names []string) (fields []int, err error) {
	if names == nil {
		for i := range s.NumFields() {
			fields = append(fields, i)
		}
	}
	for _, name := range names {
		at := s.FieldIndices(name)
		if len(at) == 0 {
			return nil, status.Errorf(status.Invalid, "there is no column %q", name)
		}
		fields = append(fields, at[0])
	}
	for _, i := range fields {
		if _, err := typed.Storable(s.Field(i).Type); err != nil {
			return nil, fmt.Errorf("column %q: %w", s.Field(i).Name, err)
		}
	}
	return fields, nil
}

// leaves adds the columns of the file that a field is made of.
func leaves(f *pqarrow.SchemaField, into []int) []int {
	if f.ColIndex >= 0 && len(f.Children) == 0 {
		return append(into, f.ColIndex)
	}
	for i := range f.Children {
		into = leaves(&f.Children[i], into)
	}
	return into
}

// read decodes the column chunks, as many at a time as there are processors.
func read(ctx context.Context, r *pqarrow.FileReader, schema *arrow.Schema, fields []int, mem memory.Allocator) (*typed.Table, error) {
	groups := r.ParquetReader().NumRowGroups()
	columns := make([][]arrow.Array, groups)
	for g := range columns {
		columns[g] = make([]arrow.Array, len(fields))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type chunk struct{ group, place int }
	work := make(chan chunk)
	var wait sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			for c := range work {
				a, err := column(ctx, r, c.group, fields[c.place], mem)
				if t := schema.Field(fields[c.place]).Type; err == nil && t.ID() == arrow.DURATION {
					d := a.Data()
					a = array.NewDurationData(array.NewData(t, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset()))
				}
				if err != nil {
					cancel(fmt.Errorf("row group %d, column %q: %w", c.group, schema.Field(fields[c.place]).Name, err))
					continue
				}
				columns[c.group][c.place] = a
			}
		})
	}
send:
	for g := range groups {
		for i := range fields {
			select {
			case work <- chunk{g, i}:
			case <-ctx.Done():
				break send
			}
		}
	}
	close(work)
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	picked := make([]arrow.Field, len(fields))
	for k, i := range fields {
		f := schema.Field(i)
		picked[k] = arrow.Field{Name: f.Name, Type: f.Type, Nullable: f.Nullable} // without PARQUET:field_id
		if groups > 0 {
			picked[k].Type = columns[0][k].DataType()
		}
	}
	meta := schema.Metadata()
	t := typed.NewTable(arrow.NewSchema(picked, &meta))
	for g := range groups {
		rows := r.ParquetReader().MetaData().RowGroup(g).NumRows()
		for k, a := range columns[g] {
			if int64(a.Len()) != rows {
				return nil, status.Errorf(status.Invalid, "row group %d, column %q has %d rows, not %d", g, picked[k].Name, a.Len(), rows)
			}
		}
		t.Batches = append(t.Batches, array.NewRecordBatch(t.Schema, columns[g], rows))
	}
	return t, nil
}

// column decodes one column chunk.
func column(ctx context.Context, r *pqarrow.FileReader, group, field int, mem memory.Allocator) (a arrow.Array, err error) {
	defer func() {
		if p := recover(); p != nil {
			a, err = nil, typed.Recovered(p, "it is damaged")
		}
	}()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	included := map[int]bool{}
	for _, leaf := range leaves(&r.Manifest.Fields[field], nil) {
		included[leaf] = true
	}
	reader, err := r.GetFieldReader(ctx, field, included, []int{group})
	if err != nil {
		return nil, status.Errorf(status.Invalid, "%w", err)
	}
	defer reader.Release()
	c, err := r.ReadColumn([]int{group}, reader)
	if err != nil {
		return nil, status.Errorf(status.Invalid, "%w", err)
	}
	switch len(c.Chunks()) {
	case 0:
		return array.MakeArrayOfNull(memory.DefaultAllocator, c.DataType(), 0), nil
	case 1:
		return c.Chunk(0), nil
	}
	return array.Concatenate(c.Chunks(), mem)
}

// rowGroup is how many rows a row group has at most.
const rowGroup = 1 << 20

// Write writes a table, compressed with Snappy, which every reader knows.
func Write(w io.Writer, t *typed.Table) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = typed.Recovered(r, "the table cannot be written")
		}
	}()
	// Parquet has no durations: they are whole numbers, which the Arrow schema that
	// is stored beside them makes durations of again.
	plain, err := withoutDurations(t)
	if err != nil {
		return err
	}
	out, err := pqarrow.NewFileWriter(plain.Schema, struct{ io.Writer }{w}, // not a Closer: who opened w closes it
		parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy), parquet.WithMaxRowGroupLength(rowGroup)),
		pqarrow.NewArrowWriterProperties())
	if err != nil {
		return status.Errorf(status.Invalid, "%w", err)
	}
	for _, b := range plain.Batches {
		for at := int64(0); at < b.NumRows(); at += rowGroup {
			if err := out.Write(b.NewSlice(at, min(at+rowGroup, b.NumRows()))); err != nil {
				return errors.Join(status.Errorf(status.NotImplemented, "%w", err).WithHint("an Arrow file holds every type: --format arrow"), out.Close())
			}
		}
	}
	schema, err := typed.EncodeSchema(t.Schema)
	if err == nil {
		err = out.AppendKeyValueMetadata("ARROW:schema", base64.StdEncoding.EncodeToString(schema))
	}
	return errors.Join(err, out.Close())
}

// withoutDurations returns a table with whole numbers instead of durations, over
// the same memory.
func withoutDurations(t *typed.Table) (*typed.Table, error) {
	fields := t.Schema.Fields()
	found := false
	for i := range fields {
		if fields[i].Type.ID() == arrow.DURATION {
			fields[i].Type, found = arrow.PrimitiveTypes.Int64, true
		}
	}
	if !found {
		return t, nil
	}
	meta := t.Schema.Metadata()
	out := typed.NewTable(arrow.NewSchema(fields, &meta))
	for _, b := range t.Batches {
		columns := make([]arrow.Array, len(fields))
		for i, c := range b.Columns() {
			if columns[i] = c; c.DataType().ID() == arrow.DURATION {
				d := c.Data()
				columns[i] = array.NewInt64Data(array.NewData(fields[i].Type, d.Len(), d.Buffers(), nil, d.NullN(), d.Offset()))
			}
		}
		out.Batches = append(out.Batches, array.NewRecordBatch(out.Schema, columns, b.NumRows()))
	}
	return out, nil
}
