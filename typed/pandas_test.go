//go:build linux

package typed_test

import (
	"fmt"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/typed"
)

// TestPandasIndex: a table that pandas wrote becomes a data frame with its index.
func TestPandasIndex(t *testing.T) {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	b.AppendValues([]int64{7, 8, 9}, nil)
	column := b.NewArray()
	for _, c := range []struct{ pandas, columns, index string }{
		{"", "[ i]", "<nil>"},
		{`{"index_columns":["i"],"columns":[{"name":"when","field_name":"i"}]}`, "[]", "when [7 8 9]"},
		{`{"index_columns":["i"],"columns":[{"name":null,"field_name":"i"}]}`, "[]", "<nil> [7 8 9]"},
		{`{"index_columns":[{"kind":"range","name":"r","start":10,"stop":4,"step":-2}]}`, "[ i]", "r [10 8 6]"},
		{`{"index_columns":["", "i"]}`, "[ i]", "<nil>"},
		{`{"index_columns":[""]}`, "[i]", "<nil> [7 8 9]"},
		{`nonsense`, "[ i]", "<nil>"},
	} {
		meta := arrow.NewMetadata([]string{"pandas"}, []string{c.pandas})
		fields := []arrow.Field{{Name: "", Type: column.DataType()}, {Name: "i", Type: column.DataType()}}
		columns := []arrow.Array{column, column}
		if c.columns == "[]" {
			fields, columns = fields[1:], columns[1:]
		}
		s := arrow.NewSchema(fields, &meta)
		f, err := typed.NewTable(s, array.NewRecordBatch(s, columns, 3)).DataFrame(nil)
		if err != nil {
			t.Fatal(err)
		}
		names := []string{}
		for i := range f.Columns {
			names = append(names, f.Columns[i].Name())
		}
		index := "<nil>"
		if f.Index != nil {
			rows, err := typed.Elements[int64](f.Index.Values)
			if err != nil {
				t.Fatal(err)
			}
			if f.Index.Name == nil {
				index = fmt.Sprint("<nil> ", rows)
			} else {
				index = fmt.Sprint(f.Index.Name, " ", rows)
			}
		}
		if fmt.Sprint(names) != c.columns || index != c.index {
			t.Errorf("%s: columns %q, index %s", c.pandas, names, index)
		}
	}
}
