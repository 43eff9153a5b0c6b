package typed

import (
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/v6d-go/v6d/client"
)

// Summary is what an object's metadata says of its value; no blob is read.
type Summary struct {
	Rows    int64   // -1 where it has none
	Shape   []int64 // of tensors and sparse matrices; nil elsewhere
	DType   string  // of elements; "" where it has none of one type
	Batches int     // of a table; parts of a global object
	Columns []Field
	Note    string // why it has no value in Go
}

// Field is a column by name and type.
type Field struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// Summarize returns what metadata says of a value, as far as it can be read.
func Summarize(m *client.Meta) Summary {
	s := Summary{Rows: -1}
	t, _ := Default.Lookup(m.Typename)
	if t.Resolve == nil {
		s.Note = t.Note
	}
	rows := func(key string) {
		if n, ok := m.Int(key); ok {
			s.Rows = n
		}
	}
	switch t.Name {
	case "vineyard::Table", "vineyard::RecordBatch":
		rows("num_rows_")
		rows("row_num_")
		parts, _ := list(m, "partitions_")
		s.Batches = len(parts)
		r := &Reader{reg: Default}
		if schema, err := r.schema(m); err == nil {
			s.Columns = fields(schema)
		}
	case "vineyard::SchemaProxy":
		if v, err := resolveSchema(&Reader{reg: Default}, m); err == nil {
			s.Columns = fields(v.(*arrow.Schema))
		}
	case "vineyard::Tensor", "vineyard::GlobalTensor", "vineyard::BSRMatrix", "vineyard::CSCMatrix", "vineyard::CSRMatrix", "vineyard::COOMatrix", "vineyard::DIAMatrix":
		_ = m.JSON("shape_", &s.Shape)
		if d, err := tensorDType(m); err == nil {
			s.DType = d.String()
		}
		parts, _ := list(m, "partitions_")
		s.Batches = len(parts)
	case "vineyard::DataFrame":
		summarizeFrame(m, &s)
	case "vineyard::GlobalDataFrame", "vineyard::Collection":
		parts, _ := list(m, "partitions_")
		s.Batches = len(parts)
		for i, part := range parts {
			p := Summarize(part)
			if i == 0 {
				s.Columns, s.Rows = p.Columns, 0
			}
			s.Rows += max(p.Rows, 0)
		}
	case "vineyard::Series", "vineyard::Index":
		if v := m.Member("value_"); v != nil {
			p := Summarize(v)
			s.DType = p.DType
			if len(p.Shape) > 0 {
				s.Rows = p.Shape[0]
			}
		}
	case "vineyard::Sequence", "vineyard::Array":
		rows("size_")
		s.DType = typeArgument(m.Typename)
	default:
		if rows("length_"); s.Rows >= 0 {
			s.DType = columnType(m)
		}
	}
	return s
}

func fields(s *arrow.Schema) []Field {
	list := make([]Field, s.NumFields())
	for i, f := range s.Fields() {
		list[i] = Field{f.Name, f.Type.String()}
	}
	return list
}

func summarizeFrame(m *client.Meta, s *Summary) {
	var labels []any
	if jsonField(m, "columns_", &labels) != nil {
		return
	}
	types := map[string]string{}
	for i := range len(labels) + 1 {
		var label any
		v := m.Member("__values_-value-" + itoa(i))
		if v == nil || jsonField(m, "__values_-key-"+itoa(i), &label) != nil {
			continue
		}
		p := Summarize(v)
		types[jsonText(label)] = p.DType
		if p.DType == "" {
			types[jsonText(label)] = strings.TrimPrefix(v.Typename, "vineyard::")
		}
		if len(p.Shape) > 0 && s.Rows < 0 {
			s.Rows = p.Shape[0]
		}
	}
	for _, label := range labels {
		s.Columns = append(s.Columns, Field{labelText(label), types[jsonText(label)]})
	}
	if x := m.Member("index_"); s.Rows < 0 && x != nil {
		s.Rows = Summarize(x).Rows
	}
}

// columnType names the type of an Arrow array by its typename.
func columnType(m *client.Meta) string {
	switch base, _, _ := strings.Cut(strings.TrimPrefix(m.Typename, "vineyard::"), "<"); base {
	case "NumericArray":
		dataType, _ := m.Text("data_type_")
		if t, ok := arrowType(typeArgument(m.Typename), dataType); ok {
			return t.String()
		}
		return typeArgument(m.Typename)
	case "BaseBinaryArray", "BaseListArray":
		return strings.TrimPrefix(typeArgument(m.Typename), "arrow::")
	default:
		return base
	}
}
