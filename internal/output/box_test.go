package output_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/olekukonko/tablewriter/pkg/twwidth"

	"github.com/v6d-go/v6d/internal/output"
)

var update = flag.Bool("update", false, "write the golden files")

// TestBox draws tables at several widths, none of them wider.
func TestBox(t *testing.T) {
	small := output.Box{
		Names: []string{"day", "price", "name"}, Types: []string{"date", "float64", "string"}, Numeric: []bool{false, true, false},
		Rows:    [][]string{{"2020-01-01", "1.5", "apple"}, {"2020-01-02", "null", "a long name that goes on and on, and on"}, {"2020-01-03", "-12.25", "größe 数据"}},
		Caption: "3 rows, 3 columns",
	}
	wide := output.Box{Caption: "1 of 9 rows, 30 columns", Rows: [][]string{nil}}
	for i := range 30 {
		wide.Names = append(wide.Names, fmt.Sprintf("column %d", i))
		wide.Types, wide.Numeric = append(wide.Types, "int64"), append(wide.Numeric, true)
		wide.Rows[0] = append(wide.Rows[0], fmt.Sprint(i*i*1000))
	}
	none := output.Box{Caption: "0 rows, 0 columns"}
	empty := output.Box{Names: []string{"a"}, Types: []string{"null"}, Numeric: []bool{false}, Caption: "0 rows, 1 column"}
	for name, b := range map[string]output.Box{"small": small, "wide": wide, "none": none, "empty": empty} {
		for _, width := range []int{20, 40, 80, 200} {
			var out bytes.Buffer
			if err := output.WriteBox(&out, b, width); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				if n := twwidth.Width(strings.TrimSuffix(line, "\n")); n > width && !strings.Contains(line, "columns") {
					t.Errorf("%s at %d: a line is %d wide: %s", name, width, n, line)
				}
			}
			golden := filepath.Join("testdata", fmt.Sprintf("box-%s-%d.txt", name, width))
			if *update {
				if err := os.WriteFile(golden, out.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != out.String() {
				t.Errorf("%s at %d:\n%swant\n%s", name, width, out.String(), want)
			}
		}
	}
}
