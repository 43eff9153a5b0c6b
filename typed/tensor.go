package typed

import (
	"context"
	"encoding/binary"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// Tensor is an array of any number of dimensions; none is one element.
type Tensor struct {
	DType   DType
	Shape   []int64
	Fortran bool // who made it had it in Fortran's order; Data is in C's all the same

	// PartitionIndex is where it lies among the parts of a global tensor.
	PartitionIndex []int64

	// Data are the elements, little endian, the last dimension varying fastest.
	// Strings and objects are not in it.
	Data []byte
	// Text holds the elements of a tensor of Strings, which has one dimension.
	Text *array.LargeString
	// Pickle holds the elements of a tensor of Objects, Items the same decoded.
	Pickle *Pickle
	Items  []any
}

// Element is a Go type that elements of a tensor can have.
type Element interface {
	~int8 | ~int16 | ~int32 | ~int64 | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~float32 | ~float64 | ~complex64 | ~complex128 | ~bool
}

// NewTensor returns a tensor over the memory of data. Without a shape it has one
// dimension.
func NewTensor[T Element](data []T, shape ...int64) (*Tensor, error) {
	if len(shape) == 0 {
		shape = []int64{int64(len(data))}
	}
	if n, ok := product(shape); !ok || n != int64(len(data)) {
		return nil, status.Errorf(status.Invalid, "%d elements do not have the shape %v", len(data), shape)
	}
	return &Tensor{DType: dtypeFor[T](), Shape: shape, Data: bytesOf(data)}, nil
}

// Elements returns the elements of a tensor as a slice over its memory. T must
// have the kind and size of its dtype; int64 will do for times.
func Elements[T Element](t *Tensor) ([]T, error) {
	want := dtypeFor[T]()
	have := t.DType
	if have.Kind == Datetime || have.Kind == Timedelta {
		have = Int64
	}
	if have != want {
		return nil, status.Errorf(status.MetaTreeTypeInvalid, "a tensor of %s has no elements of %s", t.DType, want)
	}
	return slice[T](t.Data), nil
}

func dtypeFor[T Element]() DType {
	t := reflect.TypeFor[T]()
	d := DType{Size: int(t.Size())}
	switch t.Kind() {
	case reflect.Bool:
		d.Kind = Bool
	case reflect.Complex64, reflect.Complex128:
		d.Kind = Complex
	case reflect.Float32, reflect.Float64:
		d.Kind = Float
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		d.Kind = Uint
	default:
		d.Kind = Int
	}
	return d
}

// slice views bytes as elements. The blobs of a pool are aligned to 64 bytes.
func slice[T any](b []byte) []T {
	var zero T
	size := int(unsafe.Sizeof(zero))
	n := len(b) / size
	if n == 0 {
		return nil
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(b)))%unsafe.Alignof(zero) != 0 {
		aligned := make([]T, n)
		copy(bytesOf(aligned), b)
		return aligned
	}
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

func bytesOf[T any](s []T) []byte {
	var zero T
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}

// product multiplies the dimensions of a shape; ok is false for those that no
// memory holds.
func product(shape []int64) (n int64, ok bool) {
	n = 1
	for _, d := range shape {
		if d < 0 || d > 0 && n > 1<<50/d {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// Len returns the number of elements.
func (t *Tensor) Len() int {
	n, _ := product(t.Shape)
	return int(n)
}

// slice returns elements of a tensor of one dimension, over the same memory.
func (t *Tensor) slice(first, last int64) *Tensor {
	out := *t
	out.Shape = []int64{last - first}
	switch {
	case t.Text != nil:
		out.Text = array.NewSlice(t.Text, first, last).(*array.LargeString)
	case t.Items != nil:
		out.Items = t.Items[first:last]
	case t.Data != nil:
		out.Data = t.Data[first*int64(t.DType.Size) : last*int64(t.DType.Size)]
	}
	return &out
}

// Rows returns a tensor of the first dimension's elements from first to before
// last, over the same memory; one of no dimension as it is.
func (t *Tensor) Rows(first, last int64) *Tensor {
	if len(t.Shape) == 0 {
		return t
	}
	first, last = max(first, 0), min(last, t.Shape[0])
	last = max(first, last)
	if len(t.Shape) == 1 {
		return t.slice(first, last)
	}
	each, _ := product(t.Shape[1:])
	flat := t.slice(first*each, last*each)
	flat.Shape = append([]int64{last - first}, t.Shape[1:]...)
	return flat
}

// At returns an element by its place in C's order: a bool, int64, uint64,
// float64, complex128, string, []byte, time.Time or time.Duration; nil for NaT
// and for nulls; an int64 where the unit of a time is none of Go's.
func (t *Tensor) At(i int) any {
	switch t.DType.Kind {
	case String:
		if t.Text.IsNull(i) {
			return nil
		}
		return t.Text.Value(i)
	case Pickled:
		if i < len(t.Items) {
			return t.Items[i]
		}
		return nil
	}
	b := t.Data[i*t.DType.Size : (i+1)*t.DType.Size]
	switch t.DType.Kind {
	case Bool:
		return b[0] != 0
	case Int:
		return signed(b)
	case Uint:
		return unsigned(b)
	case Float:
		switch t.DType.Size {
		case 2:
			return Half(binary.LittleEndian.Uint16(b))
		case 4:
			return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	case Complex:
		if t.DType.Size == 8 {
			return complex(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), float64(math.Float32frombits(binary.LittleEndian.Uint32(b[4:]))))
		}
		return complex(math.Float64frombits(binary.LittleEndian.Uint64(b)), math.Float64frombits(binary.LittleEndian.Uint64(b[8:])))
	case Datetime, Timedelta:
		return t.DType.instant(signed(b))
	case Unicode:
		var s strings.Builder
		for ; len(b) >= 4; b = b[4:] {
			r := rune(binary.LittleEndian.Uint32(b))
			if r == 0 && len(strings.Trim(string(b), "\x00")) == 0 {
				break
			}
			if !utf8.ValidRune(r) {
				r = utf8.RuneError
			}
			s.WriteRune(r)
		}
		return s.String()
	}
	return b
}

// instant turns a count of units into a time or a duration.
func (d DType) instant(n int64) any {
	if n == math.MinInt64 {
		return nil
	}
	if d.Kind == Datetime && n > -1e6 && n < 1e6 { // calendar units have no fixed length
		switch d.Unit {
		case "M":
			return time.Date(1970, time.Month(1+n), 1, 0, 0, 0, 0, time.UTC)
		case "Y":
			return time.Date(int(1970+n), 1, 1, 0, 0, 0, 0, time.UTC)
		}
	}
	per := nanoseconds(d.Unit)
	if per == 0 {
		return n
	}
	if d.Kind == Timedelta {
		if n > math.MaxInt64/per || n < -math.MaxInt64/per {
			return n
		}
		return time.Duration(n * per)
	}
	if per < 1e9 {
		k := 1e9 / per
		return time.Unix(floorDiv(n, k), (n-floorDiv(n, k)*k)*per).UTC()
	}
	if k := per / 1e9; n < math.MaxInt64/k/1000 && n > -math.MaxInt64/k/1000 {
		return time.Unix(n*k, 0).UTC()
	}
	return n
}

// nanoseconds returns the length of a unit, 0 of those that have none, or are
// shorter.
func nanoseconds(unit string) int64 {
	switch unit {
	case "ns":
		return 1
	case "us":
		return 1e3
	case "ms":
		return 1e6
	case "s":
		return 1e9
	case "m":
		return 60e9
	case "h":
		return 3600e9
	case "D":
		return 86400e9
	case "W":
		return 7 * 86400e9
	}
	return 0
}

// Half decodes IEEE 754 binary16. Arrow's own conversion is wrong for
// subnormals.
func Half(bits uint16) float64 {
	sign := 1.0
	if bits>>15 != 0 {
		sign = -1
	}
	exponent, fraction := int(bits>>10&0x1f), float64(bits&0x3ff)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 0x1f:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// Time returns a count of a Datetime's units as a time; ok is false for NaT and
// for what no time.Time is.
func (d DType) Time(n int64) (t time.Time, ok bool) {
	t, ok = d.instant(n).(time.Time)
	return t, ok
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func signed(b []byte) int64 {
	switch len(b) {
	case 1:
		return int64(int8(b[0]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(b)))
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(b)))
	}
	return int64(binary.LittleEndian.Uint64(b))
}

func unsigned(b []byte) uint64 {
	switch len(b) {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

// swapped returns elements in the other byte order.
func swapped(b []byte, d DType) []byte {
	out := slices.Clone(b)
	unit := d.Size
	switch d.Kind {
	case Complex:
		unit /= 2
	case Unicode:
		unit = 4
	}
	if unit > 1 {
		for i := 0; i+unit <= len(out); i += unit {
			slices.Reverse(out[i : i+unit])
		}
	}
	return out
}

func resolveTensor(r *Reader, m *client.Meta) (any, error) {
	t := &Tensor{}
	if err := m.JSON("shape_", &t.Shape); err != nil {
		return nil, err
	}
	n, ok := product(t.Shape)
	if !ok {
		return nil, damaged(m, "no tensor has the shape %v", t.Shape)
	}
	if m.Raw("partition_index_") != nil {
		if err := m.JSON("partition_index_", &t.PartitionIndex); err != nil {
			return nil, err
		}
	}
	if order, ok := m.Text("order_"); ok {
		t.Fortran = strings.Trim(order, `"`) == "F"
	}
	var err error
	if t.DType, err = tensorDType(m); err != nil {
		return nil, err
	}
	switch t.DType.Kind {
	case String:
		v, err := r.Member(m, "buffer_")
		if err != nil {
			return nil, err
		}
		switch text := v.(type) {
		case *array.LargeString:
			t.Text = text
		case *array.String:
			wide, err := widened(text)
			if err != nil {
				return nil, err
			}
			t.Text = wide.(*array.LargeString)
		default:
			return nil, damaged(m, "its strings are a %T", v)
		}
		t.Shape = []int64{int64(t.Text.Len())} // 0.24 ignores shape_ as well
		return t, nil
	case Pickled:
		b, err := r.blob(m, "buffer_")
		if err != nil {
			return nil, err
		}
		t.Pickle = &Pickle{b}
		if v, err := t.Pickle.Value(); err == nil {
			if x, ok := v.(*Tensor); ok && x.Items != nil && int64(len(x.Items)) == n {
				t.Items = x.Items
			}
		}
		return t, nil
	}
	if n == 0 {
		return t, nil
	}
	b, err := r.blob(m, "buffer_")
	if err != nil {
		return nil, err
	}
	if t.DType.Size == 0 {
		return nil, damaged(m, "its elements have no bytes")
	}
	size := n * int64(t.DType.Size)
	if n > maxElement && size/n != int64(t.DType.Size) {
		return nil, damaged(m, "no tensor has the shape %v", t.Shape)
	}
	if err := need(m, "buffer_", b, size); err != nil {
		return nil, err
	}
	t.Data = b[:size:size]
	if t.DType.Big {
		t.Data = swapped(t.Data, t.DType)
		t.DType.Big = false
	}
	return t, nil
}

// tensorDType finds the dtype of a tensor. The typename decides between the two
// meanings of float: value_type_ is 8 bytes where Python wrote it, 4 where C++
// did, which is the one that writes Tensor<float> with it.
func tensorDType(m *client.Meta) (DType, error) {
	meta, _ := m.Text("value_type_meta_")
	value, _ := m.Text("value_type_")
	element := typeArgument(m.Typename)
	if d, ok := parseProtocol(meta); ok && (d.Big || d.Kind == Unicode || d.Kind == Raw) {
		return d, nil
	}
	if d, err := ParseDType(element); err == nil && d.Kind != Pickled {
		return d, nil
	}
	if d, err := ParseDType(value); err == nil {
		return d, nil
	}
	return DType{}, status.Errorf(status.NotImplemented, "%s %s: elements of type %q cannot be read", m.Typename, m.ID, value)
}

// typeArgument returns T of a typename Name<T>.
func typeArgument(typename string) string {
	_, rest, ok := strings.Cut(typename, "<")
	if !ok || !strings.HasSuffix(rest, ">") {
		return ""
	}
	return rest[:len(rest)-1]
}

// TensorMeta returns the metadata of a tensor, of which nothing is filed yet,
// with a member that holds its elements in nbytes bytes.
func TensorMeta(t *Tensor, buffer *client.Meta, nbytes int64) (*client.Meta, error) {
	if _, ok := product(t.Shape); !ok {
		return nil, status.Errorf(status.Invalid, "no tensor has the shape %v", t.Shape)
	}
	if t.DType.Kind == Raw {
		return nil, status.Errorf(status.NotImplemented, "a tensor of %s, which Vineyard's Python client cannot read", t.DType).
			WithHint("store it as bytes, or as strings")
	}
	order := `"C"`
	if t.Fortran {
		order = `"F"`
	}
	return client.NewMeta("vineyard::Tensor<"+t.DType.element()+">").
		Set("shape_", append([]int64{}, t.Shape...)).
		Set("partition_index_", append([]int64{}, t.PartitionIndex...)).
		Set("value_type_", t.DType.String()).
		Set("value_type_meta_", t.DType.Protocol()).
		Set("order_", order).Set("nbytes", nbytes).Add("buffer_", buffer), nil
}

func buildTensor(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	t := value.(*Tensor)
	n, ok := product(t.Shape)
	if !ok {
		return nil, status.Errorf(status.Invalid, "no tensor has the shape %v", t.Shape)
	}
	switch t.DType.Kind {
	case String:
		if int64(t.Text.Len()) != n || len(t.Shape) != 1 {
			return nil, status.Errorf(status.Invalid, "%d strings do not have the shape %v", t.Text.Len(), t.Shape)
		}
		buffer, err := w.Build(ctx, arrow.Array(t.Text))
		if err != nil {
			return nil, err
		}
		return TensorMeta(t, buffer, 8*n) // as NumPy counts: the pointers
	case Pickled:
		if t.Pickle == nil {
			return nil, status.Errorf(status.NotImplemented, "a tensor of objects that are not pickled")
		}
		blob, err := w.Blob(ctx, t.Pickle.Bytes)
		if err != nil {
			return nil, err
		}
		return TensorMeta(t, blob, 8*n)
	}
	if int64(len(t.Data)) != n*int64(t.DType.Size) {
		return nil, status.Errorf(status.Invalid, "%d bytes do not have the shape %v of %s", len(t.Data), t.Shape, t.DType)
	}
	blob, err := w.Blob(ctx, t.Data)
	if err != nil {
		return nil, err
	}
	return TensorMeta(t, blob, int64(len(t.Data)))
}

// resolveArray reads the plain array of C++, vineyard::Array<T>, as a tensor of
// one dimension; of an element that is no number it is raw bytes.
func resolveArray(r *Reader, m *client.Meta) (any, error) {
	n, err := count(m, "size_")
	if err != nil {
		return nil, err
	}
	b, err := r.blob(m, "buffer_")
	if err != nil {
		return nil, err
	}
	d, err := ParseDType(typeArgument(m.Typename))
	if err != nil || d.Size == 0 {
		d = DType{Kind: Raw, Size: 1}
		if n > 0 && len(b)%n == 0 {
			d.Size = len(b) / n
		}
	}
	if err := need(m, "buffer_", b, int64(n)*int64(d.Size)); err != nil {
		return nil, err
	}
	return &Tensor{DType: d, Shape: []int64{int64(n)}, Data: b[:n*d.Size]}, nil
}
