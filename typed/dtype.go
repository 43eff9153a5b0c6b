package typed

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/v6d-go/v6d/internal/status"
)

// Kind is the class of a DType.
type Kind uint8

// The kinds of elements. Those from String on are not held in the tensor's own
// buffer.
const (
	Bool Kind = iota + 1
	Int
	Uint
	Float
	Complex
	Datetime  // counts of a unit since 1970, int64; the least is NaT
	Timedelta // counts of a unit, int64; the least is NaT
	Unicode   // of a fixed length, UTF-32
	Raw       // bytes of a fixed length: NumPy's S and V
	String    // in an Arrow array of strings
	Pickled   // in a pickle of the whole array
)

// DType is the type of an array's elements.
type DType struct {
	Kind Kind
	Size int    // bytes of an element; 0 for String and Pickled
	Unit string // of Datetime and Timedelta: s, ms, us, ns, D, and the others that NumPy knows
	Big  bool   // big-endian, as it was read; what is read here is turned round
}

// The dtypes that have a Go type.
var (
	Int8       = DType{Kind: Int, Size: 1}
	Int16      = DType{Kind: Int, Size: 2}
	Int32      = DType{Kind: Int, Size: 4}
	Int64      = DType{Kind: Int, Size: 8}
	Uint8      = DType{Kind: Uint, Size: 1}
	Uint16     = DType{Kind: Uint, Size: 2}
	Uint32     = DType{Kind: Uint, Size: 4}
	Uint64     = DType{Kind: Uint, Size: 8}
	Float16    = DType{Kind: Float, Size: 2}
	Float32    = DType{Kind: Float, Size: 4}
	Float64    = DType{Kind: Float, Size: 8}
	Complex64  = DType{Kind: Complex, Size: 8}
	Complex128 = DType{Kind: Complex, Size: 16}
	Bools      = DType{Kind: Bool, Size: 1}
	Strings    = DType{Kind: String}
	Objects    = DType{Kind: Pickled}
)

// spellings are the names of §2 of the object model that are not a kind and a
// number of bits: those of C++ compilers, of Arrow, and short forms.
var spellings = map[string]DType{
	"bool": Bools, "bool_": Bools, "b1": Bools, "?": Bools,
	"signed char": Int8, "char": Int8, "i8": Int8, "short": Int16, "short int": Int16, "i16": Int16,
	"int": Int32, "i32": Int32, "long": Int64, "long int": Int64, "long long": Int64, "i64": Int64,
	"unsigned char": Uint8, "u8": Uint8, "byte": Uint8, "short unsigned int": Uint16, "unsigned short": Uint16, "u16": Uint16,
	"uint": Uint32, "unsigned int": Uint32, "unsigned": Uint32, "u32": Uint32,
	"unsigned long": Uint64, "long unsigned int": Uint64, "unsigned long long": Uint64, "u64": Uint64,
	"half": Float16, "halffloat": Float16, "f16": Float16, "float": Float32, "f32": Float32, "double": Float64, "f64": Float64,
	"string": Strings, "std::string": Strings, "str": Strings, "object": Objects, "O": Objects, "|O": Objects,
}

// bitKinds are the kinds that NumPy names with a number of bits.
var bitKinds = []struct {
	name  string
	kind  Kind
	sizes []int
}{
	{"int", Int, []int{1, 2, 4, 8}},
	{"uint", Uint, []int{1, 2, 4, 8}},
	{"float", Float, []int{2, 4, 8}},
	{"complex", Complex, []int{8, 16}},
	{"str", Unicode, nil},
	{"bytes", Raw, nil},
	{"void", Raw, nil},
}

// maxElement bounds an element, in bytes.
const maxElement = 1 << 28

// ParseDType reads the name of a dtype in any spelling that a Vineyard client
// writes: NumPy's names (int64, datetime64[ns]) and array-protocol strings (<i8),
// those of C++ (double, short int), and short forms (f64, u8).
func ParseDType(name string) (DType, error) {
	unknown := status.Errorf(status.Invalid, "no dtype %q", name).
		WithHint("dtypes are named as in NumPy: int8 to uint64, float16 to float64, complex64, complex128, bool, datetime64[ns], timedelta64[ns], str")
	if d, ok := spellings[name]; ok {
		return d, nil
	}
	for _, k := range []struct {
		prefix string
		kind   Kind
	}{{"datetime64", Datetime}, {"timedelta64", Timedelta}, {"timestamp", Datetime}, {"duration", Timedelta}} {
		if rest, ok := strings.CutPrefix(name, k.prefix); ok {
			unit, ok := parseUnit(rest)
			if !ok {
				return DType{}, unknown
			}
			return DType{Kind: k.kind, Size: 8, Unit: unit}, nil
		}
	}
	for _, k := range bitKinds {
		rest, ok := strings.CutPrefix(name, k.name)
		if !ok || rest == "" || rest[0] == '[' {
			continue
		}
		bits, err := strconv.ParseUint(rest, 10, 32)
		if err != nil || bits%8 != 0 || bits/8 > maxElement || k.sizes == nil && k.kind == Unicode && bits%32 != 0 {
			return DType{}, unknown
		}
		size := int(bits / 8)
		for _, s := range k.sizes {
			if s == size {
				return DType{Kind: k.kind, Size: size}, nil
			}
		}
		if k.sizes == nil {
			return DType{Kind: k.kind, Size: size}, nil
		}
		return DType{}, unknown
	}
	if d, ok := parseProtocol(name); ok {
		return d, nil
	}
	return DType{}, unknown
}

// parseUnit reads the unit of a time in brackets, [ns] or [TimeUnit][zone].
func parseUnit(text string) (string, bool) {
	if len(text) < 3 || text[0] != '[' || text[len(text)-1] != ']' {
		return "", false
	}
	unit, _, _ := strings.Cut(text[1:len(text)-1], "]")
	unit, _, _ = strings.Cut(unit, ",")
	switch unit {
	case "S", "MS", "US", "NS":
		unit = strings.ToLower(unit)
	}
	switch unit {
	case "s", "ms", "us", "ns", "D", "h", "m", "W", "M", "Y", "ps", "fs", "as":
		return unit, true
	}
	return "", false
}

// parseProtocol reads a string of NumPy's array protocol, such as <f8.
func parseProtocol(s string) (d DType, ok bool) {
	if len(s) < 2 {
		return d, false
	}
	switch s[0] {
	case '>':
		d.Big = true
		s = s[1:]
	case '<', '|', '=':
		s = s[1:]
	}
	code, rest := s[0], s[1:]
	if code == 'M' || code == 'm' {
		unit, ok := parseUnit(strings.TrimPrefix(rest, "8"))
		d.Kind, d.Size, d.Unit = Datetime, 8, unit
		if code == 'm' {
			d.Kind = Timedelta
		}
		return d, ok && strings.HasPrefix(rest, "8")
	}
	n, err := strconv.ParseUint(rest, 10, 32)
	if err != nil || n > maxElement {
		return d, false
	}
	d.Size = int(n)
	switch code {
	case 'b':
		d.Kind, ok = Bool, n == 1
	case 'i':
		d.Kind, ok = Int, n == 1 || n == 2 || n == 4 || n == 8
	case 'u':
		d.Kind, ok = Uint, n == 1 || n == 2 || n == 4 || n == 8
	case 'f':
		d.Kind, ok = Float, n == 2 || n == 4 || n == 8
	case 'c':
		d.Kind, ok = Complex, n == 8 || n == 16
	case 'S', 'V':
		d.Kind, ok = Raw, true
	case 'U':
		d.Kind, d.Size, ok = Unicode, int(4*n), n <= maxElement/4
	case 'O':
		d, ok = Objects, true
	}
	d.Big = d.Big && d.Size > 1 && d.Kind != Raw
	return d, ok
}

// String returns NumPy's name.
func (d DType) String() string {
	switch d.Kind {
	case Bool:
		return "bool"
	case Datetime:
		return "datetime64[" + d.Unit + "]"
	case Timedelta:
		return "timedelta64[" + d.Unit + "]"
	case String:
		return "string"
	case Pickled:
		return "object"
	}
	for _, k := range bitKinds {
		if k.kind == d.Kind {
			return k.name + strconv.Itoa(8*d.Size)
		}
	}
	return "unknown"
}

// Protocol returns the string of NumPy's array protocol, such as <i8.
func (d DType) Protocol() string {
	order := "<"
	switch {
	case d.Big:
		order = ">"
	case d.Size == 1 || d.Kind == Raw:
		order = "|"
	}
	switch d.Kind {
	case Bool:
		return "|b1"
	case Int:
		return fmt.Sprintf("%si%d", order, d.Size)
	case Uint:
		return fmt.Sprintf("%su%d", order, d.Size)
	case Float:
		return fmt.Sprintf("%sf%d", order, d.Size)
	case Complex:
		return fmt.Sprintf("%sc%d", order, d.Size)
	case Datetime:
		return order + "M8[" + d.Unit + "]"
	case Timedelta:
		return order + "m8[" + d.Unit + "]"
	case Unicode:
		return fmt.Sprintf("%sU%d", order, d.Size/4)
	case Raw:
		return fmt.Sprintf("|S%d", d.Size)
	case String:
		return "str"
	}
	return "|O"
}

// element returns the name in a typename, Tensor<name>: the one that most
// readers know.
func (d DType) element() string {
	switch d {
	case Int32:
		return "int"
	case Float32:
		return "float"
	case Float64:
		return "double"
	case Strings:
		return "std::string"
	}
	return d.String()
}
