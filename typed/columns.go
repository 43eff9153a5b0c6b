package typed

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// New tables and data frames over the columns of others: only metadata is made,
// columns and record batches are members of both.

// columnSet is a table, record batch or data frame by its members.
type columnSet struct {
	m       *client.Meta
	frame   bool
	schema  *arrow.Schema  // of tables
	batches []*client.Meta // of tables
	labels  []any          // of data frames
	values  []*client.Meta // of data frames
}

func openColumns(m *client.Meta) (*columnSet, error) {
	s := &columnSet{m: m}
	t, _ := Default.Lookup(m.Typename)
	var err error
	switch t.Name {
	case "vineyard::Table":
		if s.batches, err = list(m, "partitions_", "batch_num_"); err != nil {
			return nil, err
		}
	case "vineyard::RecordBatch":
		s.batches = []*client.Meta{m}
	case "vineyard::DataFrame":
		s.frame = true
		return s, s.openFrame()
	default:
		return nil, status.Errorf(status.Invalid, "object %s is a %s, not a table or a data frame", m.ID, m.Typename)
	}
	if s.schema, err = (&Reader{reg: Default}).schema(m); err != nil {
		return nil, err
	}
	for _, b := range s.batches {
		if n, ok := b.Int("column_num_"); !ok || n != int64(s.schema.NumFields()) {
			return nil, damaged(b, "it has %s columns, its schema %d", b.Raw("column_num_"), s.schema.NumFields())
		}
	}
	return s, nil
}

func (s *columnSet) openFrame() error {
	if err := jsonField(s.m, "columns_", &s.labels); err != nil {
		return err
	}
	n, err := count(s.m, "__values_-size")
	if err != nil {
		return err
	}
	byLabel := map[string][]*client.Meta{}
	for i := range n {
		var label any
		if err := jsonField(s.m, "__values_-key-"+itoa(i), &label); err != nil {
			return err
		}
		byLabel[jsonText(label)] = append(byLabel[jsonText(label)], s.m.Member("__values_-value-"+itoa(i)))
	}
	for _, label := range s.labels {
		v := byLabel[jsonText(label)]
		if len(v) == 0 || v[0] == nil {
			return damaged(s.m, "it has no values of column %s", labelText(label))
		}
		s.values = append(s.values, v[0])
		byLabel[jsonText(label)] = v[1:]
	}
	return nil
}

func (s *columnSet) names() []string {
	var names []string
	if !s.frame {
		for _, f := range s.schema.Fields() {
			names = append(names, f.Name)
		}
		return names
	}
	for _, label := range s.labels {
		names = append(names, labelText(label))
	}
	return names
}

// rows lists the number of rows of each batch.
func (s *columnSet) rows() (list []int64) {
	if s.frame {
		return []int64{Summarize(s.m).Rows}
	}
	for _, b := range s.batches {
		n, _ := b.Int("row_num_")
		list = append(list, n)
	}
	return list
}

// nbytes of a member, 0 if it says none.
func nbytes(m *client.Meta) int64 {
	n, _ := m.Int("nbytes")
	return n
}

// place is a column of one of several sets.
type place struct {
	set *columnSet
	at  int
	as  string // its new name; "" for the one it has
}

// assemble makes the metadata of a set of columns, which all have the same rows.
func assemble(like *columnSet, columns []place) (*client.Meta, error) {
	if like.frame {
		return assembleFrame(like, columns)
	}
	fields := make([]arrow.Field, len(columns))
	for i, c := range columns {
		fields[i] = c.set.schema.Field(c.at)
		if c.as != "" {
			fields[i].Name = c.as
		}
	}
	// The schema's metadata is left out: pandas keeps a list of columns there.
	schema, err := schemaMeta(arrow.NewSchema(fields, nil))
	if err != nil {
		return nil, err
	}
	t := client.NewMeta("vineyard::Table").Add("schema_", schema)
	total, rows := int64(0), int64(0)
	for i, n := range like.rows() {
		b := client.NewMeta("vineyard::RecordBatch").
			Set("row_num_", n).Set("column_num_", len(columns)).Set("__columns_-size", len(columns)).Add("schema_", schema)
		size := int64(0)
		for k, c := range columns {
			column := c.set.batches[i].Member("__columns_-" + itoa(c.at))
			if column == nil {
				return nil, damaged(c.set.batches[i], "it has no column %d", c.at)
			}
			size += nbytes(column)
			share(b, "__columns_-"+itoa(k), column)
		}
		total, rows = total+size, rows+n
		t.Add("partitions_-"+itoa(i), b.Set("nbytes", size))
	}
	n := len(like.batches)
	return t.Set("num_rows_", rows).Set("num_columns_", len(columns)).Set("batch_num_", n).Set("partitions_-size", n).Set("nbytes", total), nil
}

// share adds a member of another object, or one that is not filed yet.
func share(m *client.Meta, key string, member *client.Meta) {
	if member.ID == 0 {
		m.Add(key, member)
	} else {
		m.AddObject(key, member.ID)
	}
}

func assembleFrame(like *columnSet, columns []place) (*client.Meta, error) {
	m := client.NewMeta("vineyard::DataFrame")
	labels := make([]any, len(columns))
	seen := map[string]bool{}
	for i, c := range columns {
		labels[i] = c.set.labels[c.at]
		if c.as != "" {
			labels[i] = c.as
		}
		if seen[jsonText(labels[i])] {
			return nil, status.Errorf(status.Invalid, "two columns are called %s", labelText(labels[i]))
		}
		seen[jsonText(labels[i])] = true
		m.Set("__values_-key-"+itoa(i), jsonText(labels[i]))
		share(m, "__values_-value-"+itoa(i), c.set.values[c.at])
	}
	m.Set("columns_", jsonText(labels)).Set("__values_-size", len(labels)).
		Set("partition_index_row_", -1).Set("partition_index_column_", -1).Set("row_batch_index_", 0).Set("nbytes", 0)
	if x := like.m.Member("index_"); x != nil {
		m.AddObject("index_", x.ID)
	}
	return m, nil
}

// SelectColumns returns the metadata, not filed yet, of a table or data frame of
// some columns of another.
func SelectColumns(m *client.Meta, names []string) (*client.Meta, error) {
	s, err := openColumns(m)
	if err != nil {
		return nil, err
	}
	have := s.names()
	at := map[string]int{}
	for i := len(have) - 1; i >= 0; i-- {
		at[have[i]] = i
	}
	var columns []place
	for _, name := range names {
		i, ok := at[name]
		if !ok {
			return nil, noColumn(name, have)
		}
		columns = append(columns, place{set: s, at: i})
	}
	return assemble(s, columns)
}

// JoinColumns returns the metadata, not filed yet, of a table or data frame with
// the columns of several, which have the same rows in the same batches. names,
// if not nil, are the new names of all columns.
func JoinColumns(sources []*client.Meta, names []string) (*client.Meta, error) {
	var sets []*columnSet
	var columns []place
	for _, m := range sources {
		s, err := openColumns(m)
		if err != nil {
			return nil, err
		}
		for i := range s.names() {
			columns = append(columns, place{set: s, at: i})
		}
		if sets = append(sets, s); s.frame != sets[0].frame {
			return nil, status.Errorf(status.Invalid, "%s is a %s, %s a %s", sources[0].ID, sources[0].Typename, m.ID, m.Typename)
		}
		if a, b := sets[0].rows(), s.rows(); !equal(a, b) {
			return nil, status.Errorf(status.Invalid, "%s has the rows %s, %s has %s", sources[0].ID, brief(a), m.ID, brief(b)).
				WithHint("columns can be shared by tables whose record batches have the same lengths")
		}
	}
	if names != nil {
		if len(names) != len(columns) {
			return nil, status.Errorf(status.Invalid, "%d names for %d columns", len(names), len(columns))
		}
		for i := range columns {
			columns[i].as = names[i]
		}
	}
	return assemble(sets[0], columns)
}

func equal(a, b []int64) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// brief writes how many rows batches have.
func brief(rows []int64) string {
	text := ""
	for i, n := range rows {
		if i > 0 {
			text += "+"
		}
		if i == 5 {
			return text + "..."
		}
		text += strconv.FormatInt(n, 10)
	}
	return text
}

// ConcatRows returns the metadata, not filed yet, of a table with the record
// batches of several, one below the other.
func ConcatRows(sources []*client.Meta) (*client.Meta, error) {
	m := client.NewMeta("vineyard::Table")
	var schema *arrow.Schema
	total, rows, n := int64(0), int64(0), 0
	for _, source := range sources {
		s, err := openColumns(source)
		if err != nil {
			return nil, err
		}
		if s.frame {
			return nil, status.Errorf(status.Invalid, "%s is a data frame, whose columns are in one piece", source.ID).
				WithHint("tables share their rows; a data frame has to be copied")
		}
		if schema == nil {
			schema = s.schema
			m.AddObject("schema_", source.Member("schema_").ID)
		} else if difference(schema, s.schema) != "" {
			return nil, status.Errorf(status.Invalid, "%s has other columns than %s: %s", source.ID, sources[0].ID, difference(schema, s.schema))
		}
		for _, b := range s.batches {
			m.AddObject("partitions_-"+itoa(n), b.ID)
			k, _ := b.Int("row_num_")
			rows, total, n = rows+k, total+nbytes(b), n+1
		}
	}
	return m.Set("num_rows_", rows).Set("num_columns_", schema.NumFields()).Set("batch_num_", n).Set("partitions_-size", n).Set("nbytes", total), nil
}

// difference says where the columns of two schemas part, "" where they do not.
func difference(a, b *arrow.Schema) string {
	if a.NumFields() != b.NumFields() {
		return strconv.Itoa(a.NumFields()) + " and " + strconv.Itoa(b.NumFields())
	}
	for i := range a.NumFields() {
		if x, y := a.Field(i), b.Field(i); x.Name != y.Name || !arrow.TypeEqual(x.Type, y.Type) {
			return fmt.Sprintf("%q of %s and %q of %s", x.Name, x.Type, y.Name, y.Type)
		}
	}
	return ""
}

// ErrNotShared says that a column lies in other pieces than a table, so that it
// has to be copied.
var ErrNotShared = errors.New("the column lies in other pieces than the table")

// AddColumn returns the metadata, not filed yet, of a table or data frame with
// all columns of another and one more, which is an array, tensor, series, or a
// table of one column. It fails with ErrNotShared where that has to be copied.
func AddColumn(to *client.Meta, name string, column *client.Meta) (*client.Meta, error) {
	s, err := openColumns(to)
	if err != nil {
		return nil, err
	}
	for _, have := range s.names() {
		if have == name {
			return nil, status.Errorf(status.ObjectExists, "%s has a column %q already", to.ID, name)
		}
	}
	rows := int64(0)
	for _, n := range s.rows() {
		rows += n
	}
	if n := lengthOfMeta(column); n >= 0 && n != rows {
		return nil, status.Errorf(status.Invalid, "%s has %d rows, %s has %d", to.ID, rows, column.ID, n)
	}
	var added *columnSet
	t, _ := Default.Lookup(column.Typename)
	switch {
	case t.Name == "vineyard::Table" || t.Name == "vineyard::RecordBatch" || t.Name == "vineyard::DataFrame":
		if added, err = openColumns(column); err != nil {
			return nil, err
		}
		if len(added.names()) != 1 {
			return nil, status.Errorf(status.Invalid, "%s has %d columns, not one", column.ID, len(added.names()))
		}
		if added.frame != s.frame || !equal(added.rows(), s.rows()) {
			return nil, ErrNotShared
		}
	case s.frame && t.Name == "vineyard::Series":
		added = &columnSet{frame: true, labels: []any{name}, values: []*client.Meta{column.Member("value_")}}
	case s.frame && t.Name == "vineyard::Tensor" && len(Summarize(column).Shape) == 1:
		added = &columnSet{frame: true, labels: []any{name}, values: []*client.Meta{column}}
	case !s.frame && len(s.batches) == 1 && arrayType(column) != nil:
		added = &columnSet{
			schema:  arrow.NewSchema([]arrow.Field{{Name: name, Type: arrayType(column), Nullable: true}}, nil),
			batches: []*client.Meta{client.NewMeta("").Add("__columns_-0", column)},
		}
	default:
		return nil, ErrNotShared
	}
	var columns []place
	for i := range s.names() {
		columns = append(columns, place{set: s, at: i})
	}
	return assemble(s, append(columns, place{set: added, at: 0, as: name}))
}

// arrayType returns the type of an Arrow array by its metadata, nil of what is
// none, or says too little.
func arrayType(m *client.Meta) arrow.DataType {
	switch m.Typename {
	case largeStrings:
		return arrow.BinaryTypes.LargeString
	case largeBinaries:
		return arrow.BinaryTypes.LargeBinary
	case "vineyard::BooleanArray":
		return arrow.FixedWidthTypes.Boolean
	}
	if !strings.HasPrefix(m.Typename, "vineyard::NumericArray<") {
		return nil
	}
	dataType, _ := m.Text("data_type_")
	t, _ := arrowType(typeArgument(m.Typename), dataType)
	return t
}

// lengthOfMeta returns the rows of a value by its metadata, -1 if it has none.
func lengthOfMeta(m *client.Meta) int64 {
	s := Summarize(m)
	if len(s.Shape) > 0 {
		return s.Shape[0]
	}
	return s.Rows
}

// CutLike returns a column as a table or data frame of that one column, in the
// pieces that another has: what AddColumn shares.
func CutLike(to *client.Meta, name string, c *arrow.Chunked) (any, error) {
	s, err := openColumns(to)
	if err != nil {
		return nil, err
	}
	if s.frame {
		v, err := pandas(c, nil)
		if err != nil {
			return nil, err
		}
		f := NewDataFrame()
		f.Columns = []Column{{name, v}}
		return f, nil
	}
	whole, err := array.Concatenate(c.Chunks(), heap)
	if err != nil {
		return nil, err
	}
	t := &Table{Schema: arrow.NewSchema([]arrow.Field{{Name: name, Type: c.DataType(), Nullable: true}}, nil)}
	at := int64(0)
	for _, n := range s.rows() {
		if at+n > int64(whole.Len()) {
			return nil, status.Errorf(status.Invalid, "%s has more than the %d rows of the column", to.ID, whole.Len())
		}
		t.Batches = append(t.Batches, array.NewRecordBatch(t.Schema, []arrow.Array{array.NewSlice(whole, at, at+n)}, n))
		at += n
	}
	return t, nil
}
