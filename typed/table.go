package typed

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// Table is record batches of one schema. Columns are shared by position.
type Table struct {
	Schema  *arrow.Schema
	Batches []arrow.RecordBatch // may be none
}

// NewTable returns a table of batches, which must have the schema.
func NewTable(schema *arrow.Schema, batches ...arrow.RecordBatch) *Table {
	return &Table{Schema: schema, Batches: batches}
}

// Rows returns the number of rows.
func (t *Table) Rows() int64 {
	n := int64(0)
	for _, b := range t.Batches {
		n += b.NumRows()
	}
	return n
}

// Column returns a column in the pieces that the batches hold.
func (t *Table) Column(i int) *arrow.Chunked {
	chunks := make([]arrow.Array, len(t.Batches))
	for k, b := range t.Batches {
		chunks[k] = b.Column(i)
	}
	return arrow.NewChunked(t.Schema.Field(i).Type, chunks)
}

// Select returns a table of some columns, in the order asked, over the same
// memory.
func (t *Table) Select(names []string) (*Table, error) {
	var at []int
	for _, name := range names {
		i := t.Schema.FieldIndices(name)
		if len(i) == 0 {
			return nil, noColumn(name, t.Names())
		}
		at = append(at, i...)
	}
	fields := make([]arrow.Field, len(at))
	for k, i := range at {
		fields[k] = t.Schema.Field(i)
	}
	meta := t.Schema.Metadata()
	out := &Table{Schema: arrow.NewSchema(fields, &meta)}
	for _, b := range t.Batches {
		columns := make([]arrow.Array, len(at))
		for k, i := range at {
			columns[k] = b.Column(i)
		}
		out.Batches = append(out.Batches, array.NewRecordBatch(out.Schema, columns, b.NumRows()))
	}
	return out, nil
}

// Slice returns the rows from first to before last, over the same memory.
func (t *Table) Slice(first, last int64) *Table {
	out := &Table{Schema: t.Schema}
	for _, b := range t.Batches {
		n := b.NumRows()
		if lo, hi := max(first, 0), min(last, n); lo < hi {
			out.Batches = append(out.Batches, b.NewSlice(lo, hi))
		}
		first, last = first-n, last-n
	}
	return out
}

// Names lists the columns.
func (t *Table) Names() []string {
	names := make([]string, t.Schema.NumFields())
	for i, f := range t.Schema.Fields() {
		names[i] = f.Name
	}
	return names
}

// Reader returns the table as a stream of batches.
func (t *Table) Reader() (array.RecordReader, error) {
	return array.NewRecordReader(t.Schema, t.Batches)
}

// maxListed is how many names an error lists.
const maxListed = 20

func noColumn(name string, have []string) error {
	more := ""
	if len(have) > maxListed {
		have, more = have[:maxListed], " ..."
	}
	return status.Errorf(status.Invalid, "there is no column %q", name).WithHint(fmt.Sprintf("there are: %q%s", have, more))
}

// storableSchema returns the schema under which columns are stored.
func storableSchema(s *arrow.Schema) (*arrow.Schema, error) {
	fields := make([]arrow.Field, s.NumFields())
	for i, f := range s.Fields() {
		t, err := Storable(f.Type)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", f.Name, err)
		}
		fields[i] = arrow.Field{Name: f.Name, Type: t, Nullable: f.Nullable, Metadata: f.Metadata}
	}
	meta := s.Metadata()
	return arrow.NewSchema(fields, &meta), nil
}

func buildSchema(_ context.Context, _ *Writer, value any) (*client.Meta, error) {
	return schemaMeta(value.(*arrow.Schema))
}

// schemaMeta returns the metadata of a schema; all of it is in there.
func schemaMeta(s *arrow.Schema) (*client.Meta, error) {
	b, err := EncodeSchema(s)
	if err != nil {
		return nil, err
	}
	text := make([]byte, 0, 4*len(b)+16)
	text = append(text, `{"bytes":[`...)
	for i, x := range b {
		if i > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendUint(text, uint64(x), 10)
	}
	text = append(text, "]}"...)
	return client.NewMeta("vineyard::SchemaProxy").
		Set("schema_binary_", string(text)).Set("nbytes", len(b)), nil
}

// EncodeSchema returns the encapsulated message of a schema: what an IPC stream
// begins with, without the 8 bytes that end it.
func EncodeSchema(s *arrow.Schema) ([]byte, error) {
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(s))
	if err := w.Close(); err != nil {
		return nil, status.Errorf(status.ArrowError, "encode the schema: %w", err)
	}
	return out.Bytes()[:out.Len()-8], nil
}

// maxSchema bounds a schema, in bytes.
const maxSchema = 64 << 20

func resolveSchema(r *Reader, m *client.Meta) (v any, err error) {
	var b []byte
	if m.Raw("schema_binary_") != nil {
		var field struct {
			Bytes []uint16 `json:"bytes"`
		}
		if err := m.JSON("schema_binary_", &field); err != nil {
			return nil, err
		}
		b = make([]byte, len(field.Bytes))
		for i, x := range field.Bytes {
			if x > 255 {
				return nil, damaged(m, "its schema has a byte of %d", x)
			}
			b[i] = byte(x)
		}
	} else if b, err = r.blob(m, "buffer_"); err != nil {
		return nil, err
	}
	s, err := decodeSchema(b)
	if err != nil {
		return nil, damaged(m, "%v", err)
	}
	return s, nil
}

func decodeSchema(b []byte) (s *arrow.Schema, err error) {
	defer func() {
		if r := recover(); r != nil { // the library trusts the offsets in a message
			s, err = nil, fmt.Errorf("its schema is damaged: %v", r)
		}
	}()
	if len(b) > maxSchema {
		return nil, fmt.Errorf("its schema has %d bytes, more than %d", len(b), maxSchema)
	}
	if _, err := CheckSchema(b); err != nil {
		return nil, err
	}
	r, err := ipc.NewReader(bytes.NewReader(b), ipc.WithDelayReadSchema(false))
	if err != nil {
		return nil, fmt.Errorf("its schema: %w", err)
	}
	defer r.Release()
	return r.Schema(), nil
}

func buildRecordBatch(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	b := value.(arrow.RecordBatch)
	s, err := storableSchema(b.Schema())
	if err != nil {
		return nil, err
	}
	proxy, err := schemaMeta(s)
	if err != nil {
		return nil, err
	}
	return batchMeta(ctx, w, b, proxy)
}

func batchMeta(ctx context.Context, w *Writer, b arrow.RecordBatch, schema *client.Meta) (*client.Meta, error) {
	m := client.NewMeta("vineyard::RecordBatch").
		Set("row_num_", b.NumRows()).Set("column_num_", b.NumCols()).Set("__columns_-size", b.NumCols()).
		Add("schema_", schema)
	total := int64(0)
	for i := range int(b.NumCols()) {
		column, err := w.Build(ctx, b.Column(i))
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", b.ColumnName(i), err)
		}
		n, _ := column.Int("nbytes")
		total += n
		m.Add("__columns_-"+itoa(i), column)
	}
	return m.Set("nbytes", total), nil
}

func resolveRecordBatch(r *Reader, m *client.Meta) (any, error) {
	rows, err := count(m, "row_num_")
	if err != nil {
		return nil, err
	}
	s, err := r.schema(m)
	if err != nil {
		return nil, err
	}
	members, err := list(m, "__columns_", "column_num_")
	if err != nil {
		return nil, err
	}
	if len(members) != s.NumFields() {
		return nil, damaged(m, "it has %d columns, its schema %d", len(members), s.NumFields())
	}
	fields := s.Fields()
	columns := make([]arrow.Array, len(members))
	for i, member := range members {
		v, err := r.Resolve(member)
		if err != nil {
			return nil, err
		}
		a, ok := v.(arrow.Array)
		if !ok {
			return nil, status.Errorf(status.NotImplemented, "column %q of %s is a %s, which is no Arrow array", fields[i].Name, m.ID, member.Typename).
				WithHint("Python stored it as a pickle: only Python can read that")
		}
		if a.Len() != rows {
			return nil, damaged(m, "column %q has %d rows, not %d", fields[i].Name, a.Len(), rows)
		}
		if as, ok := retyped(a, fields[i].Type); ok {
			a = as
		}
		fields[i].Type = a.DataType() // the widths of offsets may differ from the schema's
		columns[i] = a
	}
	meta := s.Metadata()
	return array.NewRecordBatch(arrow.NewSchema(fields, &meta), columns, int64(rows)), nil
}

func (r *Reader) schema(m *client.Meta) (*arrow.Schema, error) {
	v, err := r.Member(m, "schema_")
	if err != nil {
		return nil, err
	}
	s, ok := v.(*arrow.Schema)
	if !ok {
		return nil, damaged(m, "its schema is a %s", m.Member("schema_").Typename)
	}
	return s, nil
}

// buildTable makes a table whose batches share one schema object: a schema of
// thousands of columns is megabytes of metadata.
func buildTable(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	t := value.(*Table)
	out, err := NewTableWriter(w, t.Schema)
	if err != nil {
		return nil, err
	}
	for _, b := range t.Batches {
		if err := out.Add(ctx, b); err != nil {
			return nil, err
		}
	}
	return out.build(ctx)
}

// TableWriter stores a table batch by batch, each as it comes: a table that is
// larger than Go's memory, or whose batches do not last.
type TableWriter struct {
	w       *Writer
	schema  *arrow.Schema
	meta    *client.Meta // of the schema
	batches []*client.Meta
	rows    int64
	nbytes  int64
}

// NewTableWriter returns a writer of a table with the columns of schema, by w.
// When it is given up, w.Undo takes back what was stored.
func NewTableWriter(w *Writer, schema *arrow.Schema) (*TableWriter, error) {
	s, err := storableSchema(schema)
	if err != nil {
		return nil, err
	}
	meta, err := schemaMeta(s)
	return &TableWriter{w: w, schema: schema, meta: meta}, err
}

// Add stores a batch. Its memory is not needed any more afterwards, unless it is
// from the writer's Pool.
func (t *TableWriter) Add(ctx context.Context, b arrow.RecordBatch) error {
	if !SameColumns(t.schema, b.Schema()) {
		return status.Errorf(status.Invalid, "batch %d has other columns than the table: %s", len(t.batches), difference(t.schema, b.Schema()))
	}
	m, err := batchMeta(ctx, t.w, b, t.meta)
	if err != nil {
		return err
	}
	t.batches = append(t.batches, m)
	t.rows += b.NumRows()
	t.nbytes += nbytes(m)
	return nil
}

// Rows returns how many rows were added.
func (t *TableWriter) Rows() int64 { return t.rows }

// File files the table and returns its id.
func (t *TableWriter) File(ctx context.Context) (client.ID, error) {
	m, err := t.build(ctx)
	if err != nil {
		return 0, err
	}
	return t.w.File(ctx, m)
}

func (t *TableWriter) build(ctx context.Context) (*client.Meta, error) {
	if len(t.batches) == 0 { // Python cannot read a table of none
		if err := t.Add(ctx, emptyBatch(t.schema)); err != nil {
			return nil, err
		}
	}
	n := len(t.batches)
	m := client.NewMeta("vineyard::Table").
		Set("num_rows_", t.rows).Set("num_columns_", t.schema.NumFields()).
		Set("batch_num_", n).Set("partitions_-size", n).Set("nbytes", t.nbytes).Add("schema_", t.meta)
	for i, b := range t.batches {
		m.Add("partitions_-"+itoa(i), b)
	}
	return m, nil
}

func emptyBatch(s *arrow.Schema) arrow.RecordBatch {
	columns := make([]arrow.Array, s.NumFields())
	for i, f := range s.Fields() {
		columns[i] = array.MakeArrayOfNull(heap, f.Type, 0)
	}
	return array.NewRecordBatch(s, columns, 0)
}

func resolveTable(r *Reader, m *client.Meta) (any, error) {
	s, err := r.schema(m)
	if err != nil {
		return nil, err
	}
	members, err := list(m, "partitions_", "batch_num_", "partitions_-size")
	if err != nil {
		return nil, err
	}
	t := &Table{Schema: s}
	for i, member := range members {
		v, err := r.Resolve(member)
		if err != nil {
			return nil, err
		}
		switch b := v.(type) {
		case arrow.RecordBatch:
			if len(t.Batches) == 0 {
				meta := s.Metadata()
				t.Schema = arrow.NewSchema(b.Schema().Fields(), &meta)
			} else if !SameColumns(b.Schema(), t.Schema) {
				return nil, damaged(m, "part %d has the columns %s, not %s", i, b.Schema(), t.Schema)
			}
			t.Batches = append(t.Batches, b)
		case *Absent:
			return nil, status.Errorf(status.ObjectNotExists, "part %d of table %s, %s, lies on instance %d", i, m.ID, b.ID, b.Instance).
				WithHint("--fetch gets it from there; in Go: client.Fetch")
		default:
			return nil, damaged(m, "part %d is a %s", i, member.Typename)
		}
	}
	return t, nil
}

// SameColumns reports whether two schemas have the same columns, but for what is
// noted at them.
func SameColumns(a, b *arrow.Schema) bool { return difference(a, b) == "" }

// jsonText returns a value as JSON text, for the fields that hold some.
func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(b)
}
