package typed

import (
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// Arrow arrays. The buffers of an object are Arrow's own; offset_ says where the
// array begins in them. What is written here begins at 0, because the readers in
// Rust and Java do not look.

// The names of arrays of bytes and strings, by how wide their offsets are.
const (
	largeStrings  = "vineyard::BaseBinaryArray<arrow::LargeStringArray>"
	largeBinaries = "vineyard::LargeBinaryArray" // the spelling that Python reads
	largeLists    = "vineyard::LargeListArray"
)

// buffers are the parts of an array that all kinds have.
type buffers struct {
	length, offset, nulls int
	valid                 []byte
}

// head reads those fields, and checks the bitmap.
func (r *Reader) head(m *client.Meta) (h buffers, err error) {
	if h.length, err = count(m, "length_"); err != nil {
		return h, err
	}
	if m.Raw("offset_") != nil {
		if h.offset, err = count(m, "offset_"); err != nil {
			return h, err
		}
	}
	nulls, ok := m.Int("null_count_")
	if !ok || nulls < 0 || nulls > int64(h.length) {
		nulls = array.UnknownNullCount
	}
	if m.Member("null_bitmap_") != nil {
		if h.valid, err = r.blob(m, "null_bitmap_"); err != nil {
			return h, err
		}
	}
	if len(h.valid) == 0 {
		nulls = 0
	} else if err := need(m, "null_bitmap_", h.valid, bitutil.BytesForBits(int64(h.offset+h.length))); err != nil {
		return h, err
	}
	h.nulls = int(nulls)
	return h, nil
}

// data makes an array of its parts. Nothing is retained: the memory is the
// client's.
func (h buffers) data(t arrow.DataType, children []arrow.ArrayData, parts ...[]byte) arrow.Array {
	bufs := []*memory.Buffer{nil}
	if len(h.valid) > 0 {
		bufs[0] = memory.NewBufferBytes(h.valid)
	}
	for _, p := range parts {
		if p == nil {
			p = []byte{}
		}
		bufs = append(bufs, memory.NewBufferBytes(p))
	}
	return array.MakeFromData(array.NewData(t, h.length, bufs, children, h.nulls, h.offset))
}

var timeUnits = map[string]arrow.TimeUnit{"s": arrow.Second, "ms": arrow.Millisecond, "us": arrow.Microsecond, "ns": arrow.Nanosecond}

// primitives are the Arrow types of dtypes.
var primitives = map[DType]arrow.DataType{
	Int8: arrow.PrimitiveTypes.Int8, Int16: arrow.PrimitiveTypes.Int16, Int32: arrow.PrimitiveTypes.Int32, Int64: arrow.PrimitiveTypes.Int64,
	Uint8: arrow.PrimitiveTypes.Uint8, Uint16: arrow.PrimitiveTypes.Uint16, Uint32: arrow.PrimitiveTypes.Uint32, Uint64: arrow.PrimitiveTypes.Uint64,
	Float16: arrow.FixedWidthTypes.Float16, Float32: arrow.PrimitiveTypes.Float32, Float64: arrow.PrimitiveTypes.Float64,
}

// arrowType returns the Arrow type of the elements of a NumericArray<name>; what
// C++ leaves out of the name is in data_type_.
func arrowType(name, dataType string) (arrow.DataType, bool) {
	if strings.HasPrefix(name, "arrow::") {
		if dataType == "" {
			dataType = map[string]string{
				"arrow::Date32Type": "date32[day]", "arrow::Date64Type": "date64[ms]",
				"arrow::Time32Type": "time[32][MS]", "arrow::Time64Type": "time[64][NS]", "arrow::TimestampType": "timestamp[MS]",
			}[name]
		}
		name = dataType
	}
	family, rest, _ := strings.Cut(name, "[")
	parts := strings.FieldsFunc(rest, func(r rune) bool { return r == '[' || r == ']' || r == ',' })
	for len(parts) < 3 {
		parts = append(parts, "")
	}
	unit, known := timeUnits[strings.ToLower(parts[0])]
	switch family {
	case "date32":
		return arrow.FixedWidthTypes.Date32, true
	case "date64":
		return arrow.FixedWidthTypes.Date64, true
	case "time": // time[32][S]
		family += parts[0]
		unit, known = timeUnits[strings.ToLower(parts[1])]
		if family == "time64" {
			return &arrow.Time64Type{Unit: unit}, known && unit >= arrow.Microsecond
		}
		return &arrow.Time32Type{Unit: unit}, known && family == "time32" && unit <= arrow.Millisecond
	case "time32":
		return &arrow.Time32Type{Unit: unit}, known && unit <= arrow.Millisecond
	case "time64":
		return &arrow.Time64Type{Unit: unit}, known && unit >= arrow.Microsecond
	case "timestamp":
		zone := strings.TrimPrefix(strings.TrimSpace(parts[1]), "tz=")
		return &arrow.TimestampType{Unit: unit, TimeZone: zone}, known
	case "duration", "timedelta64":
		return &arrow.DurationType{Unit: unit}, known
	case "datetime64":
		if parts[0] == "D" {
			return arrow.FixedWidthTypes.Date32, true
		}
		return &arrow.TimestampType{Unit: unit}, known
	}
	d, err := ParseDType(name)
	t := primitives[d]
	return t, err == nil && t != nil
}

func resolveNumeric(r *Reader, m *client.Meta) (any, error) {
	dataType, _ := m.Text("data_type_")
	t, ok := arrowType(typeArgument(m.Typename), dataType)
	if more, known := arrowType(dataType, ""); known && ok && sameWidth(t, more) {
		t = more // the typename says less, in the spelling that Python reads
	}
	if !ok {
		return nil, status.Errorf(status.NotImplemented, "%s %s: its elements are of no known type", m.Typename, m.ID)
	}
	return r.fixed(m, t)
}

func sameWidth(a, b arrow.DataType) bool {
	x, ok1 := a.(arrow.FixedWidthDataType)
	y, ok2 := b.(arrow.FixedWidthDataType)
	return ok1 && ok2 && x.BitWidth() == y.BitWidth()
}

// dataType returns what the field data_type_ says of an array, as C++ writes it,
// where the typename does not say all of it; "" elsewhere. Decimals are ours.
func dataType(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.Time32Type:
		return "time[32][" + strings.ToUpper(t.Unit.String()) + "]"
	case *arrow.Time64Type:
		return "time[64][" + strings.ToUpper(t.Unit.String()) + "]"
	case *arrow.Date64Type:
		return "date64[ms]"
	case *arrow.TimestampType:
		if t.TimeZone != "" {
			return "timestamp[" + strings.ToUpper(t.Unit.String()) + "][" + t.TimeZone + "]"
		}
	case *arrow.Decimal128Type, *arrow.Decimal256Type:
		return t.String()
	}
	return ""
}

// decimalType reads the name of a decimal type, such as decimal(20, 2).
func decimalType(name string, width int) (arrow.DataType, bool) {
	var precision, scale int32
	rest := strings.TrimPrefix(strings.TrimPrefix(strings.TrimPrefix(name, "decimal"), "128"), "256")
	if n, err := fmt.Sscanf(rest, "(%d, %d)", &precision, &scale); err != nil || n != 2 {
		return nil, false
	}
	switch {
	case width == 16 && precision >= 1 && precision <= 38:
		return &arrow.Decimal128Type{Precision: precision, Scale: scale}, true
	case width == 32 && precision >= 1 && precision <= 76:
		return &arrow.Decimal256Type{Precision: precision, Scale: scale}, true
	}
	return nil, false
}

// fixed reads an array of elements of a fixed width.
func (r *Reader) fixed(m *client.Meta, t arrow.DataType) (any, error) {
	h, err := r.head(m)
	if err != nil {
		return nil, err
	}
	b, err := r.blob(m, "buffer_")
	if err != nil {
		return nil, err
	}
	bits := int64(t.(arrow.FixedWidthDataType).BitWidth())
	if err := need(m, "buffer_", b, bitutil.BytesForBits(int64(h.offset+h.length)*bits)); err != nil {
		return nil, err
	}
	return h.data(t, nil, b), nil
}

func resolveBoolean(r *Reader, m *client.Meta) (any, error) {
	return r.fixed(m, arrow.FixedWidthTypes.Boolean)
}

func resolveFixedBinary(r *Reader, m *client.Meta) (any, error) {
	width, err := count(m, "byte_width_")
	if err != nil || width > maxElement {
		return nil, damaged(m, "byte_width_ is %s", m.Raw("byte_width_"))
	}
	name, _ := m.Text("data_type_")
	if t, ok := decimalType(name, width); ok {
		return r.fixed(m, t)
	}
	return r.fixed(m, &arrow.FixedSizeBinaryType{ByteWidth: width})
}

func resolveNull(_ *Reader, m *client.Meta) (any, error) {
	n, err := count(m, "length_")
	if err != nil {
		return nil, err
	}
	return array.NewNull(n), nil
}

// offsets reads the offsets of a list or string array, and checks that the first
// and last lie in what they point into; whether they rise in between is not
// looked at, which would take longer than to get the object.
func (r *Reader) offsets(m *client.Meta, h buffers, wide bool, total int) ([]byte, error) {
	b, err := r.blob(m, "buffer_offsets_")
	if err != nil {
		return nil, err
	}
	if h.length == 0 && len(b) == 0 {
		return make([]byte, 8*(h.offset+1)), nil
	}
	size := 4
	if wide {
		size = 8
	}
	if err := need(m, "buffer_offsets_", b, int64(h.offset+h.length+1)*int64(size)); err != nil {
		return nil, err
	}
	at := func(i int) int64 { return signed(b[i*size : (i+1)*size]) }
	first, last := at(h.offset), at(h.offset+h.length)
	if first < 0 || last < first || last > int64(total) {
		return nil, damaged(m, "its offsets go from %d to %d of %d", first, last, total)
	}
	return b, nil
}

// resolveBinary reads strings and bytes, of either width of offsets.
func resolveBinary(wide bool, t arrow.DataType) Resolver {
	return func(r *Reader, m *client.Meta) (any, error) {
		h, err := r.head(m)
		if err != nil {
			return nil, err
		}
		key := "buffer_data_"
		if m.Member(key) == nil {
			key = "buffer_" // Java
		}
		b, err := r.blob(m, key)
		if err != nil {
			return nil, err
		}
		offsets, err := r.offsets(m, h, wide, len(b))
		if err != nil {
			return nil, err
		}
		return h.data(t, nil, offsets, b), nil
	}
}

// resolveList reads lists, of either width of offsets.
func resolveList(wide bool) Resolver {
	return func(r *Reader, m *client.Meta) (any, error) {
		h, err := r.head(m)
		if err != nil {
			return nil, err
		}
		values, err := r.array(m, "values_")
		if err != nil {
			return nil, err
		}
		offsets, err := r.offsets(m, h, wide, values.Len())
		if err != nil {
			return nil, err
		}
		var t arrow.DataType = arrow.ListOf(values.DataType())
		if wide {
			t = arrow.LargeListOf(values.DataType())
		}
		return h.data(t, []arrow.ArrayData{values.Data()}, offsets), nil
	}
}

func resolveFixedList(r *Reader, m *client.Meta) (any, error) {
	h, err := r.head(m)
	if err != nil {
		return nil, err
	}
	size, err := count(m, "list_size_")
	if err != nil {
		return nil, err
	}
	values, err := r.array(m, "values_")
	if err != nil {
		return nil, err
	}
	if size > math.MaxInt32 || (h.offset+h.length) > 0 && size > values.Len()/(h.offset+h.length) {
		return nil, damaged(m, "%d lists of %d need more than %d values", h.length, size, values.Len())
	}
	return h.data(arrow.FixedSizeListOf(int32(size), values.DataType()), []arrow.ArrayData{values.Data()}), nil
}

// array returns a member that is an array.
func (r *Reader) array(m *client.Meta, key string) (arrow.Array, error) {
	v, err := r.Member(m, key)
	if err != nil {
		return nil, err
	}
	a, ok := v.(arrow.Array)
	if !ok {
		return nil, damaged(m, "%s is a %s, not an Arrow array", key, m.Member(key).Typename)
	}
	return a, nil
}

// retyped returns an array as another type of the same layout: a schema says
// more than a column, such as the zone of a timestamp. ok is false when the
// layouts differ.
func retyped(a arrow.Array, want arrow.DataType) (arrow.Array, bool) {
	have := a.DataType()
	if arrow.TypeEqual(have, want, arrow.CheckMetadata()) {
		return a, true
	}
	data := a.Data()
	children := data.Children()
	w, fixed := want.(arrow.FixedWidthDataType)
	h, sameKind := have.(arrow.FixedWidthDataType)
	switch wl := want.(type) {
	case *arrow.LargeListType:
		hl, ok := a.(*array.LargeList)
		if !ok {
			return nil, false
		}
		values, ok := retyped(hl.ListValues(), wl.Elem())
		if !ok {
			return nil, false
		}
		children = []arrow.ArrayData{values.Data()}
	case *arrow.ListType:
		hl, ok := a.(*array.List)
		if !ok {
			return nil, false
		}
		values, ok := retyped(hl.ListValues(), wl.Elem())
		if !ok {
			return nil, false
		}
		children = []arrow.ArrayData{values.Data()}
	default:
		if !fixed || !sameKind || w.BitWidth() != h.BitWidth() || len(children) > 0 || isNested(want) {
			return nil, false
		}
	}
	return array.MakeFromData(array.NewData(want, data.Len(), data.Buffers(), children, data.NullN(), data.Offset())), true
}

func isNested(t arrow.DataType) bool {
	_, ok := t.(arrow.NestedType)
	return ok || t.ID() == arrow.DICTIONARY || t.ID() == arrow.EXTENSION
}

// numericName is how an array's type is written in NumericArray<name>: the
// spelling that Python reads; the others read it as well but for float32.
func numericName(t arrow.DataType) string {
	switch t := t.(type) {
	case *arrow.TimestampType:
		return "datetime64[" + t.Unit.String() + "]"
	case *arrow.DurationType:
		return "timedelta64[" + t.Unit.String() + "]"
	}
	switch t.ID() {
	case arrow.INT32, arrow.TIME32:
		return "int"
	case arrow.UINT32:
		return "uint"
	case arrow.FLOAT64:
		return "double"
	case arrow.FLOAT32:
		return "float32"
	case arrow.FLOAT16:
		return "float16"
	case arrow.DATE32:
		return "datetime64[D]"
	case arrow.DATE64:
		return "datetime64[ms]"
	case arrow.TIME64:
		return "int64"
	}
	return t.Name()
}

// Storable returns the type under which values of a type are stored, which is
// what a schema has to say: strings, bytes and lists get wide offsets,
// dictionaries are decoded, views and lists of a fixed size become plain ones.
// Types that no client could read are an error.
func Storable(t arrow.DataType) (arrow.DataType, error) {
	switch x := t.(type) {
	case *arrow.StringType, *arrow.StringViewType, *arrow.LargeStringType:
		return arrow.BinaryTypes.LargeString, nil
	case *arrow.BinaryType, *arrow.BinaryViewType, *arrow.LargeBinaryType:
		return arrow.BinaryTypes.LargeBinary, nil
	case *arrow.DictionaryType:
		return Storable(x.ValueType)
	case arrow.ExtensionType:
		return Storable(x.StorageType())
	case arrow.ListLikeType:
		if t.ID() != arrow.LIST && t.ID() != arrow.LARGE_LIST && t.ID() != arrow.FIXED_SIZE_LIST { // maps, views
			break
		}
		elem, err := Storable(x.Elem())
		if err != nil {
			return nil, err
		}
		return arrow.LargeListOf(elem), nil
	case *arrow.NullType, *arrow.BooleanType, *arrow.FixedSizeBinaryType, *arrow.Decimal128Type, *arrow.Decimal256Type:
		return t, nil
	case *arrow.MonthIntervalType, *arrow.DayTimeIntervalType, *arrow.MonthDayNanoIntervalType:
	case arrow.FixedWidthDataType:
		if x.BitWidth() >= 8 && !isNested(t) {
			return t, nil
		}
	}
	return nil, status.Errorf(status.NotImplemented, "values of type %s cannot be stored: Vineyard has no layout for them", t)
}

func buildArrow(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	a := value.(arrow.Array)
	t, err := Storable(a.DataType())
	if err != nil {
		return nil, err
	}
	if a, err = stored(a); err != nil {
		return nil, err
	}
	if t.ID() == arrow.NULL {
		return client.NewMeta("vineyard::NullArray").Set("length_", a.Len()).Set("nbytes", 0), nil
	}
	m := client.NewMeta("").Set("length_", a.Len()).Set("null_count_", a.NullN()).Set("offset_", 0)
	total := 0
	valid := validity(a)
	add := func(key string, b []byte) error {
		blob, err := w.Blob(ctx, b)
		if err != nil {
			return err
		}
		total += len(b)
		m.Add(key, blob)
		return nil
	}
	data := a.Data()
	part := func(i int) []byte {
		if b := data.Buffers()[i]; b != nil {
			return b.Bytes()
		}
		return nil
	}
	switch t.ID() {
	case arrow.LARGE_STRING, arrow.LARGE_BINARY, arrow.LARGE_LIST:
		offsets, first, last := rebased(part(1), data.Offset(), a.Len())
		if err := add("buffer_offsets_", offsets); err != nil {
			return nil, err
		}
		if t.ID() == arrow.LARGE_LIST {
			m.Typename = largeLists
			values := a.(*array.LargeList).ListValues()
			member, err := buildArrow(ctx, w, array.NewSlice(values, int64(first), int64(last)))
			if err != nil {
				return nil, err
			}
			n, _ := member.Int("nbytes")
			total += int(n)
			m.Add("values_", member)
			break
		}
		m.Typename = largeStrings
		if t.ID() == arrow.LARGE_BINARY {
			m.Typename = largeBinaries
		}
		var text []byte
		if last > first {
			text = part(2)[first:last]
		}
		if err := add("buffer_data_", text); err != nil {
			return nil, err
		}
	case arrow.BOOL:
		m.Typename = "vineyard::BooleanArray"
		if err := add("buffer_", bits(part(1), data.Offset(), a.Len())); err != nil {
			return nil, err
		}
	default:
		width := t.(arrow.FixedWidthDataType).BitWidth() / 8
		switch t.ID() {
		case arrow.FIXED_SIZE_BINARY, arrow.DECIMAL128, arrow.DECIMAL256:
			m.Typename = "vineyard::FixedSizeBinaryArray"
			m.Set("byte_width_", width)
		default:
			m.Typename = "vineyard::NumericArray<" + numericName(t) + ">"
		}
		var b []byte
		if a.Len() > 0 {
			b = part(1)[data.Offset()*width : (data.Offset()+a.Len())*width]
		}
		if err := add("buffer_", b); err != nil {
			return nil, err
		}
	}
	if err := add("null_bitmap_", valid); err != nil {
		return nil, err
	}
	if name := dataType(t); name != "" {
		m.Set("data_type_", name)
	}
	return m.Set("nbytes", total), nil
}

// validity returns the bitmap of an array from its first element on, nil when
// nothing is null.
func validity(a arrow.Array) []byte {
	if a.NullN() == 0 || a.Data().Buffers()[0] == nil {
		return nil
	}
	return bits(a.Data().Buffers()[0].Bytes(), a.Data().Offset(), a.Len())
}

// bits returns n bits of a bitmap from one on, as a bitmap that begins there.
func bits(b []byte, from, n int) []byte {
	size := int(bitutil.BytesForBits(int64(n)))
	if from%8 == 0 {
		return b[from/8 : from/8+size]
	}
	out := make([]byte, size)
	bitutil.CopyBitmap(b, from, n, out, 0)
	return out
}

// rebased returns n+1 wide offsets that begin with 0, and where the first and
// the last point to in the original.
func rebased(b []byte, from, n int) (offsets []byte, first, last int) {
	if n == 0 {
		return make([]byte, 8), 0, 0
	}
	o := slice[int64](b)[from : from+n+1]
	if o[0] == 0 {
		return b[from*8 : (from+n+1)*8], 0, int(o[n])
	}
	out := make([]int64, n+1)
	for i, x := range o {
		out[i] = x - o[0]
	}
	return bytesOf(out), int(o[0]), int(o[n])
}

// stored returns an array in the layout of its Storable type.
func stored(a arrow.Array) (arrow.Array, error) {
	switch x := a.(type) {
	case *array.String, *array.Binary, *array.List:
		return widened(x)
	case *array.StringView:
		b := array.NewLargeStringBuilder(memory.DefaultAllocator)
		defer b.Release()
		for i := range x.Len() {
			if x.IsNull(i) {
				b.AppendNull()
			} else {
				b.Append(x.Value(i))
			}
		}
		return b.NewLargeStringArray(), nil
	case *array.BinaryView:
		b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.LargeBinary)
		defer b.Release()
		for i := range x.Len() {
			if x.IsNull(i) {
				b.AppendNull()
			} else {
				b.Append(x.Value(i))
			}
		}
		return b.NewArray(), nil
	case *array.Dictionary:
		return decoded(x)
	case array.ExtensionArray:
		return stored(x.Storage())
	case *array.FixedSizeList:
		n := int(x.DataType().(*arrow.FixedSizeListType).Len())
		offsets := make([]int64, x.Len()+1)
		for i := range offsets {
			offsets[i] = int64((x.Offset() + i) * n)
		}
		return wideList(x, bytesOf(offsets), 0, x.ListValues()), nil
	}
	return a, nil
}

// widened returns strings, bytes or lists with offsets of 8 bytes.
func widened(a arrow.Array) (arrow.Array, error) {
	data := a.Data()
	offsets := make([]int64, a.Len()+1)
	if b := data.Buffers()[1]; b != nil && a.Len() > 0 {
		for i, o := range slice[int32](b.Bytes())[data.Offset() : data.Offset()+a.Len()+1] {
			offsets[i] = int64(o)
		}
	}
	if l, ok := a.(*array.List); ok {
		return wideList(a, bytesOf(offsets), 0, l.ListValues()), nil
	}
	var t arrow.DataType = arrow.BinaryTypes.LargeString
	if a.DataType().ID() == arrow.BINARY {
		t = arrow.BinaryTypes.LargeBinary
	}
	bufs := []*memory.Buffer{nil, memory.NewBufferBytes(bytesOf(offsets)), memory.NewBufferBytes([]byte{})}
	if v := validity(a); v != nil {
		bufs[0] = memory.NewBufferBytes(v)
	}
	if b := data.Buffers()[2]; b != nil {
		bufs[2] = b
	}
	return array.MakeFromData(array.NewData(t, a.Len(), bufs, nil, a.NullN(), 0)), nil
}

func wideList(a arrow.Array, offsets []byte, offset int, values arrow.Array) arrow.Array {
	bufs := []*memory.Buffer{nil, memory.NewBufferBytes(offsets)}
	if v := validity(a); v != nil {
		bufs[0] = memory.NewBufferBytes(v)
	}
	return array.MakeFromData(array.NewData(arrow.LargeListOf(values.DataType()), a.Len(), bufs, []arrow.ArrayData{values.Data()}, a.NullN(), offset))
}

// decoded returns the values of a dictionary array in full.
func decoded(d *array.Dictionary) (arrow.Array, error) {
	values, err := stored(d.Dictionary())
	if err != nil {
		return nil, err
	}
	b := array.NewBuilder(memory.DefaultAllocator, values.DataType())
	defer b.Release()
	b.Reserve(d.Len())
	for i := range d.Len() {
		if d.IsNull(i) || values.IsNull(d.GetValueIndex(i)) {
			b.AppendNull()
			continue
		}
		j := d.GetValueIndex(i)
		switch x := values.(type) {
		case *array.LargeString:
			b.(*array.LargeStringBuilder).Append(x.Value(j))
		case *array.LargeBinary:
			b.(*array.BinaryBuilder).Append(x.Value(j))
		default:
			if err := b.AppendValueFromString(values.ValueStr(j)); err != nil {
				return nil, fmt.Errorf("decode a dictionary of %s: %w", values.DataType(), err)
			}
		}
	}
	return b.NewArray(), nil
}

// ParseArrowType reads the name of an Arrow type that a NumericArray can have,
// in any spelling.
func ParseArrowType(name string) (arrow.DataType, bool) { return arrowType(name, "") }
