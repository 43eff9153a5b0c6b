package typed

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// Index is the labels of the rows of a data frame or series.
type Index struct {
	Name   any // nil for none
	Values *Tensor
}

// Series is a labelled array of one dimension.
type Series struct {
	Name   any // nil for none
	Index  *Index
	Values *Tensor
}

// DataFrame is columns of equal length, as pandas has them.
type DataFrame struct {
	Columns []Column
	Index   *Index // nil: the rows are numbered from 0

	// Row and Column are its place in a global data frame, -1 for none;
	// RowBatch orders the parts.
	Row, Column, RowBatch int64
}

// Column is a column of a DataFrame.
type Column struct {
	Label  any // a string, or any other value of JSON: pandas allows numbers and lists
	Values any // *Tensor, *SparseArray, or what cannot be decoded: *Pickle, Scalar
}

// Name returns the label of a column as text.
func (c *Column) Name() string { return labelText(c.Label) }

func labelText(label any) string {
	if s, ok := label.(string); ok {
		return s
	}
	return jsonText(label)
}

// Rows returns the number of rows.
func (f *DataFrame) Rows() int64 {
	for i := range f.Columns {
		if n, ok := lengthOf(f.Columns[i].Values); ok {
			return n
		}
	}
	if f.Index != nil {
		return int64(f.Index.Values.Len())
	}
	return 0
}

func lengthOf(column any) (int64, bool) {
	switch v := column.(type) {
	case *Tensor:
		return int64(v.Len()), true
	case *SparseArray:
		return v.Length, true
	}
	return 0, false
}

// Select returns a data frame of some columns, in the order asked.
func (f *DataFrame) Select(names []string) (*DataFrame, error) {
	out := *f
	out.Columns = nil
	for _, name := range names {
		i := slices.IndexFunc(f.Columns, func(c Column) bool { return c.Name() == name })
		if i < 0 {
			have := make([]string, len(f.Columns))
			for k := range f.Columns {
				have[k] = f.Columns[k].Name()
			}
			return nil, noColumn(name, have)
		}
		out.Columns = append(out.Columns, f.Columns[i])
	}
	return &out, nil
}

// Slice returns the rows from first to before last, over the same memory but for
// sparse columns. Columns that cannot be decoded stay whole.
func (f *DataFrame) Slice(first, last int64) (*DataFrame, error) {
	rows := f.Rows()
	first, last = max(first, 0), min(last, rows)
	last = max(first, last)
	out := *f
	out.Columns = slices.Clone(f.Columns)
	for i := range out.Columns {
		switch x := out.Columns[i].Values.(type) {
		case *Tensor:
			out.Columns[i].Values = x.slice(first, last)
		case *SparseArray:
			d, err := x.Dense()
			if err != nil {
				return nil, err
			}
			out.Columns[i].Values = d.slice(first, last)
		}
	}
	if f.Index != nil && !f.Index.counts() {
		out.Index = &Index{Name: f.Index.Name, Values: f.Index.Values.slice(first, last)}
	} else {
		out.Index = nil
	}
	return &out, nil
}

func buildIndex(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	x := value.(*Index)
	v, err := w.Build(ctx, x.Values)
	if err != nil {
		return nil, err
	}
	dtype := x.Values.DType.String()
	if x.Values.DType == Strings {
		dtype = "object" // pandas'
	}
	return client.NewMeta("vineyard::Index").
		Set("name", jsonText(x.Name)).Set("value_type_", dtype).Set("nbytes", 0).Add("value_", v), nil
}

func resolveIndex(r *Reader, m *client.Meta) (any, error) {
	x := &Index{}
	if m.Raw("name") != nil {
		if err := m.JSON("name", &x.Name); err != nil {
			return nil, err
		}
	}
	var err error
	x.Values, err = r.tensor(m, "value_")
	return x, err
}

// tensor returns a member that is a tensor.
func (r *Reader) tensor(m *client.Meta, key string) (*Tensor, error) {
	v, err := r.Member(m, key)
	if err != nil {
		return nil, err
	}
	t, ok := v.(*Tensor)
	if !ok {
		return nil, damaged(m, "%s is a %s, not a tensor", key, m.Member(key).Typename)
	}
	return t, nil
}

func buildSeries(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	x := value.(*Series)
	index := x.Index
	if index == nil {
		index = rangeIndex(x.Values.Len())
	}
	i, err := w.Build(ctx, index)
	if err != nil {
		return nil, err
	}
	v, err := w.Build(ctx, x.Values)
	if err != nil {
		return nil, err
	}
	return client.NewMeta("vineyard::Series").
		Set("name", jsonText(x.Name)).Set("nbytes", 0).Add("index_", i).Add("value_", v), nil
}

func rangeIndex(n int) *Index {
	rows := make([]int64, n)
	for i := range rows {
		rows[i] = int64(i)
	}
	return &Index{Values: &Tensor{DType: Int64, Shape: []int64{int64(n)}, Data: bytesOf(rows)}}
}

func resolveSeries(r *Reader, m *client.Meta) (any, error) {
	x := &Series{}
	if m.Raw("name") != nil {
		if err := m.JSON("name", &x.Name); err != nil {
			return nil, err
		}
	}
	var err error
	if x.Values, err = r.tensor(m, "value_"); err != nil {
		return nil, err
	}
	x.Index, err = r.index(m)
	return x, err
}

// index returns the member index_, nil if there is none.
func (r *Reader) index(m *client.Meta) (*Index, error) {
	if m.Member("index_") == nil {
		return nil, nil
	}
	v, err := r.Member(m, "index_")
	if err != nil {
		return nil, err
	}
	switch x := v.(type) {
	case *Index:
		return x, nil
	case *Tensor: // C++
		return &Index{Values: x}, nil
	}
	return nil, damaged(m, "index_ is a %s", m.Member("index_").Typename)
}

// indexLabel is the key under which C++ keeps the index among the columns.
const indexLabel = "index_"

func resolveDataFrame(r *Reader, m *client.Meta) (any, error) {
	f := &DataFrame{Row: -1, Column: -1}
	for key, into := range map[string]*int64{"partition_index_row_": &f.Row, "partition_index_column_": &f.Column, "row_batch_index_": &f.RowBatch} {
		if n, ok := m.Int(key); ok {
			*into = n
		}
	}
	var labels []any
	if err := jsonField(m, "columns_", &labels); err != nil {
		return nil, err
	}
	n, err := count(m, "__values_-size")
	if err != nil {
		return nil, err
	}
	if f.Index, err = r.index(m); err != nil {
		return nil, err
	}
	values := map[string][]any{} // by the JSON of the label, made uniform; pandas allows equal ones
	for i := range n {
		var label any
		if err := jsonField(m, "__values_-key-"+itoa(i), &label); err != nil {
			return nil, err
		}
		v, err := r.column(m, "__values_-value-"+itoa(i))
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", labelText(label), err)
		}
		if label == indexLabel && !slices.Contains(labels, any(indexLabel)) {
			if t, ok := v.(*Tensor); ok && f.Index == nil {
				f.Index = &Index{Values: t}
			}
			continue
		}
		values[jsonText(label)] = append(values[jsonText(label)], v)
	}
	for _, label := range labels {
		v := values[jsonText(label)]
		if len(v) == 0 {
			return nil, damaged(m, "it has no values of column %s", labelText(label))
		}
		f.Columns = append(f.Columns, Column{label, v[0]})
		values[jsonText(label)] = v[1:]
	}
	rows := f.Rows()
	for i := range f.Columns {
		if n, ok := lengthOf(f.Columns[i].Values); ok && n != rows {
			return nil, damaged(m, "column %s has %d rows, not %d", f.Columns[i].Name(), n, rows)
		}
	}
	if f.Index != nil && len(f.Columns) > 0 && int64(f.Index.Values.Len()) != rows {
		return nil, damaged(m, "its index has %d rows, its columns %d", f.Index.Values.Len(), rows)
	}
	return f, nil
}

// column resolves a column. Times with a zone and nullable columns are pickled
// by Python; those that can be decoded are tensors here.
func (r *Reader) column(m *client.Meta, key string) (any, error) {
	v, err := r.Member(m, key)
	if err != nil {
		return nil, err
	}
	switch x := v.(type) {
	case *Tensor:
		if x.DType == Objects {
			return x, nil
		}
		x.Shape = []int64{int64(x.Len())}
		return x, nil
	case *SparseArray, Scalar: // Python stores a column of categories as its first value
		return x, nil
	case *Pickle:
		if d, err := x.Value(); err == nil {
			if t, ok := d.(*Tensor); ok {
				t.Shape = []int64{int64(t.Len())}
				return t, nil
			}
		}
		return x, nil
	}
	return nil, damaged(m, "%s is a %s", key, m.Member(key).Typename)
}

// jsonField decodes a field of JSON text, with numbers as they are written.
func jsonField(m *client.Meta, key string, into any) error {
	s, ok := m.Text(key)
	if !ok {
		return damaged(m, "it has no field %s of JSON text", key)
	}
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return damaged(m, "field %s: %v", key, err)
	}
	return nil
}

func buildDataFrame(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	f := value.(*DataFrame)
	labels := make([]any, len(f.Columns))
	rows := f.Rows()
	seen := map[string]bool{}
	m := client.NewMeta("vineyard::DataFrame")
	for i := range f.Columns {
		c := &f.Columns[i]
		labels[i] = c.Label
		if seen[jsonText(c.Label)] {
			return nil, status.Errorf(status.Invalid, "two columns are called %s", c.Name())
		}
		seen[jsonText(c.Label)] = true
		t, ok := c.Values.(*Tensor)
		if p, pickled := c.Values.(*Pickle); pickled {
			v, err := w.Build(ctx, p)
			if err != nil {
				return nil, err
			}
			m.Set("__values_-key-"+itoa(i), jsonText(c.Label)).Add("__values_-value-"+itoa(i), v)
			continue
		}
		if !ok || len(t.Shape) != 1 || t.Shape[0] != rows {
			return nil, status.Errorf(status.Invalid, "column %s is no tensor of %d rows", c.Name(), rows)
		}
		v, err := w.Build(ctx, t)
		if err != nil {
			return nil, fmt.Errorf("column %s: %w", c.Name(), err)
		}
		m.Set("__values_-key-"+itoa(i), jsonText(c.Label)).Add("__values_-value-"+itoa(i), v)
	}
	index := f.Index
	if index == nil {
		index = rangeIndex(int(rows))
	}
	x, err := w.Build(ctx, index)
	if err != nil {
		return nil, err
	}
	return m.Set("columns_", jsonText(labels)).Set("__values_-size", len(labels)).
		Set("partition_index_row_", f.Row).Set("partition_index_column_", f.Column).Set("row_batch_index_", f.RowBatch).
		Set("nbytes", 0).Add("index_", x), nil
}

// NewDataFrame returns an empty data frame that is no part of a global one.
func NewDataFrame() *DataFrame { return &DataFrame{Row: -1, Column: -1} }

// Global is the parts of a global tensor or data frame, or of a collection.
type Global struct {
	Typename string
	// Parts are values, [*Absent] on other instances. To store one they are ids,
	// or [*Absent], of objects that are persistent if they are not of this instance.
	Parts          []any
	Shape          []int64 // of a tensor; nil if not known
	PartitionShape []int64 // how many parts there are along each dimension; nil if not known
}

func resolveGlobal(r *Reader, m *client.Meta) (any, error) {
	members, err := list(m, "partitions_")
	if err != nil {
		return nil, err
	}
	g := &Global{Typename: m.Typename}
	for key, into := range map[string]*[]int64{"shape_": &g.Shape, "partition_shape_": &g.PartitionShape} {
		if m.Raw(key) != nil {
			if err := m.JSON(key, into); err != nil {
				return nil, err
			}
		}
	}
	for _, member := range members {
		v, err := r.Resolve(member)
		if err != nil {
			return nil, err
		}
		g.Parts = append(g.Parts, v)
	}
	return g, nil
}

func buildGlobal(_ context.Context, _ *Writer, value any) (*client.Meta, error) {
	g := value.(*Global)
	m := client.NewMeta(g.Typename).Set("partitions_-size", len(g.Parts)).Set("nbytes", 0)
	m.Global = true
	switch g.Typename {
	case "vineyard::GlobalTensor":
		m.Set("shape_", append([]int64{}, g.Shape...)).Set("partition_shape_", append([]int64{}, g.PartitionShape...))
	case "vineyard::GlobalDataFrame":
		m.Set("partition_shape_row_", len(g.Parts)).Set("partition_shape_column_", 1)
	}
	for i, part := range g.Parts {
		switch p := part.(type) {
		case client.ID:
			m.AddObject("partitions_-"+itoa(i), p)
		case *Absent:
			m.AddObject("partitions_-"+itoa(i), p.ID)
		default:
			return nil, status.Errorf(status.Invalid, "part %d of a global object is a %T, not the id of an object", i, part)
		}
	}
	return m, nil
}

// Sparse is a sparse matrix of SciPy: its parts by their names there.
type Sparse struct {
	Format string // bsr, csc, csr, coo or dia
	Shape  []int64
	Parts  map[string]*Tensor
}

func resolveSparse(parts ...string) Resolver {
	return func(r *Reader, m *client.Meta) (any, error) {
		name, _, _ := strings.Cut(strings.TrimPrefix(m.Typename, "vineyard::"), "Matrix")
		s := &Sparse{Format: strings.ToLower(name), Parts: map[string]*Tensor{}}
		if err := m.JSON("shape_", &s.Shape); err != nil {
			return nil, err
		}
		for _, key := range parts {
			t, err := r.tensor(m, key)
			if err != nil {
				if t, err = r.tensor(m, key+"_"); err != nil {
					return nil, err
				}
			}
			s.Parts[key] = t
		}
		return s, nil
	}
}

// SparseArray is a sparse column of pandas.
type SparseArray struct {
	Length int64
	Kind   string  // IntIndex or BlockIndex
	Index  *Tensor // where the values are
	Values *Tensor
	Fill   string // the value everywhere else, as Python writes it
}

func resolveSparseArray(r *Reader, m *client.Meta) (any, error) {
	s := &SparseArray{}
	var ok bool
	if s.Length, ok = m.Int("sp_index_size"); !ok || s.Length < 0 || s.Length > 1<<40 {
		return nil, damaged(m, "sp_index_size is %s", m.Raw("sp_index_size"))
	}
	s.Kind, _ = m.Text("sp_index_name")
	value, _ := m.Text("value_type_")
	if _, fill, ok := strings.Cut(strings.TrimSuffix(value, "]"), ", "); ok {
		s.Fill = fill
	}
	var err error
	if s.Index, err = r.tensor(m, "sp_index"); err != nil {
		return nil, err
	}
	s.Values, err = r.tensor(m, "sp_values")
	return s, err
}
