//go:build linux

package types_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/v6d-go/v6d/typed"
)

// The canonical form of a value is JSON: None, NaN and NaT are null; numbers are
// exact; complex ones are [re,im]; bytes are base64; times are ISO 8601 in UTC
// without the zone, without zeros at the end of the fraction, and without the time
// of day at midnight; durations are counts of their unit; tables are lists of rows,
// whose keys have the order of the columns. Beside it stands the type, as far as
// the reader can tell.

// object is a JSON object whose keys keep their order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	for i, m := range o {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0])
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, err
		}
		b.Write(append(append(key, ':'), value...))
	}
	if len(o) == 0 {
		b.WriteByte('{')
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// normal returns JSON in the one spelling that two equal values have in common.
func normal(raw []byte) (string, error) {
	v, err := parse(raw)
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(v)
	return string(b), err
}

// parse decodes JSON, with objects in their order and leaves in one spelling.
func parse(raw []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := parseValue(d)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = fmt.Errorf("more follows")
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %.200s", err, raw)
	}
	return v, nil
}

func parseValue(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch x := t.(type) {
	case json.Number:
		return json.Number(normalNumber(x.String())), nil
	case string:
		return normalTime(x), nil
	case json.Delim:
		list, fields := []any{}, object{}
		for d.More() {
			key := ""
			if x == '{' {
				k, err := d.Token()
				if err != nil {
					return nil, err
				}
				key = k.(string)
			}
			v, err := parseValue(d)
			if err != nil {
				return nil, err
			}
			list, fields = append(list, v), append(fields, member{key, v})
		}
		if _, err := d.Token(); err != nil {
			return nil, err
		}
		if x == '{' {
			return fields, nil
		}
		return list, nil
	}
	return t, nil
}

// normalNumber writes whole floats as integers.
func normalNumber(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return s
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<62 {
		return strconv.FormatInt(int64(f), 10)
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

var (
	stamp = regexp.MustCompile(`^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?$`)
	clock = regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d+$`)
)

// normalTime shortens times, and leaves other text as it is.
func normalTime(s string) string {
	switch {
	case clock.MatchString(s):
		return strings.TrimRight(strings.TrimRight(s, "0"), ".")
	case stamp.MatchString(s):
		zone := "Z07:00"
		if !strings.HasSuffix(s, "Z") && s[len(s)-6] != '+' && s[len(s)-6] != '-' {
			zone = ""
		}
		t, err := time.Parse("2006-01-02T15:04:05.999999999"+zone, strings.Replace(s, " ", "T", 1))
		if err != nil {
			return s
		}
		return strings.TrimSuffix(t.UTC().Format("2006-01-02T15:04:05.999999999"), "T00:00:00")
	}
	return s
}

// arrowWords are the words of Arrow's Go library for types that its C++ library,
// and so Python, has others for.
var arrowWords = map[string]string{
	"utf8": "string", "large_utf8": "large_string", "float64": "double", "float32": "float", "float16": "halffloat",
	"date32": "date32[day]", "date64": "date64[ms]", "decimal": "decimal128",
}

var words = regexp.MustCompile(`[a-z0-9_]+`)

// arrowName returns the name of a type as Python writes it.
func arrowName(t string) string {
	t = words.ReplaceAllStringFunc(strings.ReplaceAll(t, ", nullable", ""), func(w string) string {
		if to, ok := arrowWords[w]; ok {
			return to
		}
		return w
	})
	return t
}

// canonical returns the canonical form of what typed.Get returned, and its type.
func canonical(v any) (any, string, error) {
	switch x := v.(type) {
	case typed.Scalar:
		c, err := plain(x.Value)
		return c, map[string]string{"int64": "int", "uint64": "int", "float64": "float", "string": "str"}[fmt.Sprintf("%T", x.Value)], err
	case *typed.Sequence:
		items, types, err := all(x.Items)
		return items, "(" + strings.Join(types, " ") + ")", err
	case *typed.Pickle:
		d, err := x.Value()
		if err != nil {
			return nil, "", err
		}
		c, err := plain(d)
		return c, "", err
	case []byte:
		return base64.StdEncoding.EncodeToString(x), "bytes", nil
	case *typed.Tensor:
		c, err := nested(x)
		order := map[bool]string{true: " F"}[x.Fortran && x.Len() > 0 && len(x.Shape) > 1]
		return c, dtypeName(x) + strings.ReplaceAll(fmt.Sprint(x.Shape), " ", ",") + order, err
	case *typed.Index:
		c, err := nested(x.Values)
		return c, "index " + dtypeName(x.Values) + named(x.Name), err
	case *typed.Series:
		return canonicalSeries(x)
	case *typed.DataFrame:
		return canonicalFrame(x)
	case *typed.SparseArray:
		d, err := x.Dense()
		if err != nil {
			return nil, "", err
		}
		c, t, err := canonical(d)
		return c, "sparse " + t, err
	case *typed.Sparse:
		o := object{{"format", x.Format}, {"shape", x.Shape}}
		for _, key := range slices.Sorted(maps.Keys(x.Parts)) {
			c, err := nested(x.Parts[key])
			if err != nil {
				return nil, "", err
			}
			o = append(o, member{key, c})
		}
		return o, "sparse " + x.Parts["data"].DType.String(), nil
	case *typed.Global:
		parts, types, err := all(x.Parts)
		t := "(" + strings.Join(types, " ") + ")"
		if x.Typename == "vineyard::GlobalTensor" {
			t = fmt.Sprintf("%v of %v %s", x.PartitionShape, x.Shape, t)
		}
		return parts, t, err
	case arrow.Array:
		if err := typed.Validate(x); err != nil {
			return nil, "", err
		}
		c, err := canonicalArray(x)
		return c, "array " + arrowName(x.DataType().String()), err
	case *arrow.Schema:
		fields := []any{}
		for _, f := range x.Fields() {
			fields = append(fields, object{{"name", f.Name}, {"type", arrowName(f.Type.String())}, {"nullable", f.Nullable}})
		}
		return fields, "schema", nil
	case arrow.RecordBatch:
		return canonicalTable(typed.NewTable(x.Schema(), x), "batch")
	case *typed.Table:
		return canonicalTable(x, "table")
	case *typed.Opaque:
		return object{{"opaque", x.Meta.Typename}}, map[bool]string{true: "known", false: "unknown"}[x.Known], nil
	}
	return nil, "", fmt.Errorf("there is no canonical form of %T", v)
}

// place tells where a part of a global object belongs.
func place(v any) string {
	switch x := v.(type) {
	case *typed.Tensor:
		if len(x.PartitionIndex) > 0 {
			return " @" + strings.ReplaceAll(strings.Trim(fmt.Sprint(x.PartitionIndex), "[]"), " ", ",")
		}
	case *typed.DataFrame:
		if x.Row > 0 || x.RowBatch > 0 {
			return fmt.Sprintf(" @%d,%d,%d", x.Row, x.Column, x.RowBatch)
		}
	}
	return ""
}

func all(items []any) (values []any, types []string, err error) {
	values = []any{}
	for _, item := range items {
		c, t, err := canonical(item)
		if err != nil {
			return nil, nil, err
		}
		if p, ok := item.(*typed.Pickle); ok && t == "" { // in a sequence Python tells these
			if d, err := p.Value(); err == nil && d == nil {
				t = "none"
			}
		}
		values, types = append(values, c), append(types, t)
	}
	return values, types, nil
}

// plain returns the canonical form of what a pickle or an element can be.
func plain(v any) (any, error) {
	switch x := v.(type) {
	case nil, bool, int64, uint64, string:
		return x, nil
	case typed.None:
		return nil, nil
	case *big.Int:
		return json.Number(x.String()), nil
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, nil
		}
		return x, nil
	case complex128:
		re, err := plain(real(x))
		if err != nil {
			return nil, err
		}
		im, err := plain(imag(x))
		return []any{re, im}, err
	case []byte:
		return base64.StdEncoding.EncodeToString(x), nil
	case []any:
		return plainList(x)
	case typed.Tuple:
		return plainList(x)
	case typed.Set:
		return plainList(x)
	case typed.Dict:
		o := object{}
		for _, p := range x {
			c, err := plain(p.Value)
			if err != nil {
				return nil, err
			}
			o = append(o, member{labelOf(p.Key), c})
		}
		return o, nil
	case *typed.Tensor:
		return nested(x)
	case time.Time:
		return x.UTC().Format(time.RFC3339Nano), nil
	}
	return nil, fmt.Errorf("there is no canonical form of %T", v)
}

func plainList(items []any) (any, error) {
	out := []any{}
	for _, item := range items {
		c, err := plain(item)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// labelOf is the key of a column or an item: a string as it is, others as JSON.
func labelOf(label any) string {
	if s, ok := label.(string); ok {
		return s
	}
	b, err := json.Marshal(label)
	if err != nil {
		return fmt.Sprint(label)
	}
	return string(b)
}

func named(name any) string {
	if name == nil {
		return ""
	}
	return " " + labelOf(name)
}

// dtypeName is the name of a dtype; all that is text is string, be it of a fixed
// length or objects.
func dtypeName(t *typed.Tensor) string {
	if t.DType.Kind == typed.Unicode || t.DType.Kind == typed.Pickled && (t.Items != nil || t.Len() == 0) && !slices.ContainsFunc(t.Items, func(v any) bool {
		_, ok := v.(string)
		return !ok && v != nil
	}) {
		return "string"
	}
	return t.DType.String()
}

// nested returns the elements of a tensor, as lists in lists.
func nested(t *typed.Tensor) (any, error) {
	at := 0
	var level func(shape []int64) (any, error)
	level = func(shape []int64) (any, error) {
		if len(shape) == 0 {
			at++
			return element(t, at-1)
		}
		list := []any{}
		for range shape[0] {
			c, err := level(shape[1:])
			if err != nil {
				return nil, err
			}
			list = append(list, c)
		}
		return list, nil
	}
	if t.DType.Kind == typed.Pickled && t.Items == nil && t.Len() > 0 {
		return nil, fmt.Errorf("the objects of a tensor are not decoded")
	}
	return level(t.Shape)
}

func element(t *typed.Tensor, i int) (any, error) {
	if t.DType.Kind == typed.Timedelta {
		counts, err := typed.Elements[int64](t)
		if err != nil || counts[i] == math.MinInt64 {
			return nil, err
		}
		return counts[i], nil
	}
	return plain(t.At(i))
}

func canonicalSeries(x *typed.Series) (any, string, error) {
	values, err := nested(x.Values)
	if err != nil {
		return nil, "", err
	}
	t := "series " + dtypeName(x.Values) + named(x.Name)
	if x.Index == nil || numbered(x.Index) {
		return values, t, nil
	}
	labels, of, err := canonical(x.Index)
	return object{{"index", labels}, {"values", values}}, t + ", " + of, err
}

// numbered reports whether an index only numbers the rows.
func numbered(x *typed.Index) bool {
	rows, err := typed.Elements[int64](x.Values)
	if err != nil || x.Name != nil || x.Values.DType != typed.Int64 {
		return false
	}
	for i, v := range rows {
		if v != int64(i) {
			return false
		}
	}
	return true
}

func canonicalFrame(x *typed.DataFrame) (any, string, error) {
	columns := slices.Clone(x.Columns)
	if x.Index != nil && !numbered(x.Index) {
		name := x.Index.Name
		if name == nil {
			name = "index"
			if slices.ContainsFunc(columns, func(c typed.Column) bool { return c.Label == "index" }) {
				name = "level_0" // as pandas has it
			}
		}
		columns = slices.Insert(columns, 0, typed.Column{Label: name, Values: x.Index.Values})
	}
	t := "frame"
	rows := make([]object, x.Rows())
	for _, c := range columns {
		v := c.Values
		if s, ok := v.(*typed.SparseArray); ok {
			d, err := s.Dense()
			if err != nil {
				return nil, "", err
			}
			v = d
		}
		tensor, ok := v.(*typed.Tensor)
		if !ok {
			return nil, "", fmt.Errorf("column %s is a %T", c.Name(), v)
		}
		t += " " + c.Name() + ":" + dtypeName(tensor)
		values, err := nested(tensor)
		if err != nil {
			return nil, "", err
		}
		for i, v := range values.([]any) {
			rows[i] = append(rows[i], member{c.Name(), v})
		}
	}
	return rows, t, nil
}

func canonicalTable(x *typed.Table, what string) (any, string, error) {
	rows := []object{}
	sizes := []string{}
	for _, b := range x.Batches {
		first := len(rows)
		rows = append(rows, make([]object, b.NumRows())...)
		sizes = append(sizes, strconv.FormatInt(b.NumRows(), 10))
		for k, f := range x.Schema.Fields() {
			if err := typed.Validate(b.Column(k)); err != nil {
				return nil, "", err
			}
			values, err := canonicalArray(b.Column(k))
			if err != nil {
				return nil, "", err
			}
			for i, v := range values.([]any) {
				rows[first+i] = append(rows[first+i], member{f.Name, v})
			}
		}
	}
	if len(sizes) > 1 {
		what += " " + strings.Join(sizes, "+")
	}
	for _, f := range x.Schema.Fields() {
		what += " " + f.Name + ":" + arrowName(f.Type.String())
	}
	for _, key := range slices.Sorted(slices.Values(x.Schema.Metadata().Keys())) {
		what += " #" + key
	}
	return rows, what, nil
}

func canonicalArray(a arrow.Array) (any, error) {
	out := []any{}
	for i := range a.Len() {
		c, err := cell(a, i)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// cell returns one element of an array.
func cell(a arrow.Array, i int) (any, error) {
	if a.IsNull(i) {
		return nil, nil
	}
	switch x := a.(type) {
	case *array.Boolean:
		return x.Value(i), nil
	case *array.Float16:
		return plain(float64(x.Value(i).Float32()))
	case *array.Float32:
		return plain(float64(x.Value(i)))
	case *array.Float64:
		return plain(x.Value(i))
	case *array.String:
		return x.Value(i), nil
	case *array.LargeString:
		return x.Value(i), nil
	case *array.Binary:
		return plain(x.Value(i))
	case *array.LargeBinary:
		return plain(x.Value(i))
	case *array.FixedSizeBinary:
		return plain(x.Value(i))
	case *array.Date32:
		return x.Value(i).ToTime().Format(time.DateOnly), nil
	case *array.Date64:
		return x.Value(i).ToTime().Format(time.DateOnly), nil
	case *array.Time32:
		return x.Value(i).FormattedString(x.DataType().(*arrow.Time32Type).Unit), nil
	case *array.Time64:
		return x.Value(i).FormattedString(x.DataType().(*arrow.Time64Type).Unit), nil
	case *array.Timestamp:
		return x.Value(i).ToTime(x.DataType().(*arrow.TimestampType).Unit).Format(time.RFC3339Nano), nil
	case *array.Duration:
		return int64(x.Value(i)), nil
	case array.ListLike:
		from, to := x.ValueOffsets(i)
		return canonicalArray(array.NewSlice(x.ListValues(), from, to))
	case *array.Int8, *array.Int16, *array.Int32, *array.Int64, *array.Uint8, *array.Uint16, *array.Uint32, *array.Uint64:
		return json.Number(x.ValueStr(i)), nil
	case *array.Decimal128:
		return x.Value(i).ToString(x.DataType().(*arrow.Decimal128Type).Scale), nil
	case *array.Decimal256:
		return x.Value(i).ToString(x.DataType().(*arrow.Decimal256Type).Scale), nil
	case *array.Null:
		return nil, nil
	}
	return nil, fmt.Errorf("there is no canonical form of an element of %s", a.DataType())
}
