package typed

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

// Pickle is a value that Python has pickled: what Vineyard's Python client stores
// of everything that has no type of its own.
type Pickle struct{ Bytes []byte }

// Tuple, Dict and Set are what pickles hold besides None, bool, int64, *big.Int,
// float64, string, []byte, []any for lists, and *Tensor for arrays of NumPy and
// those of pandas that hold times.
type (
	Tuple []any
	Dict  []Pair
	Set   []any
	// Pair is an item of a Dict, in the order of insertion.
	Pair struct{ Key, Value any }
)

func resolvePickle(r *Reader, m *client.Meta) (any, error) {
	b, err := r.blob(m, "buffer_")
	if err != nil {
		return nil, err
	}
	n, err := count(m, "size_")
	if err != nil {
		return nil, err
	}
	if err := need(m, "buffer_", b, int64(n)); err != nil {
		return nil, err
	}
	return &Pickle{b[:n]}, nil
}

func buildPickle(ctx context.Context, w *Writer, value any) (*client.Meta, error) {
	p, ok := value.(*Pickle)
	if !ok {
		b, err := appendPickle([]byte{0x80, 5}, value, 0)
		if err != nil {
			return nil, err
		}
		p = &Pickle{append(b, '.')}
	}
	blob, err := w.Blob(ctx, p.Bytes)
	if err != nil {
		return nil, err
	}
	return client.NewMeta("vineyard::PickleBuffer").
		Set("nbytes", len(p.Bytes)).Set("size_", len(p.Bytes)).Add("buffer_", blob), nil
}

// appendPickle appends the opcodes (protocol 5, Lib/pickletools.py of CPython)
// that leave a value on the stack. Nothing is memoised: values are trees.
func appendPickle(b []byte, value any, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, status.Errorf(status.Invalid, "a value nested more than %d deep cannot be pickled", maxDepth)
	}
	var err error
	each := func(open, closing byte, items []any) ([]byte, error) {
		b = append(b, open, '(')
		for _, item := range items {
			if b, err = appendPickle(b, item, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, closing), nil
	}
	switch x := value.(type) {
	case nil, None:
		return append(b, 'N'), nil
	case bool:
		if x {
			return append(b, 0x88), nil
		}
		return append(b, 0x89), nil
	case int:
		return appendPickle(b, int64(x), depth)
	case int64:
		if x == int64(int32(x)) {
			return binary.LittleEndian.AppendUint32(append(b, 'J'), uint32(x)), nil
		}
		return binary.LittleEndian.AppendUint64(append(b, 0x8a, 8), uint64(x)), nil
	case uint64:
		return append(binary.LittleEndian.AppendUint64(append(b, 0x8a, 9), x), 0), nil
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 'G'), math.Float64bits(x)), nil
	case json.Number:
		if i, err := x.Int64(); err == nil {
			return appendPickle(b, i, depth)
		}
		f, err := x.Float64()
		if err != nil {
			return nil, status.Errorf(status.Invalid, "%s is no number", x)
		}
		return appendPickle(b, f, depth)
	case string:
		b = binary.LittleEndian.AppendUint64(append(b, 0x8d), uint64(len(x)))
		return append(b, x...), nil
	case []byte:
		b = binary.LittleEndian.AppendUint64(append(b, 0x8e), uint64(len(x)))
		return append(b, x...), nil
	case []any:
		return each(']', 'e', x)
	case Tuple:
		b = append(b, '(')
		for _, item := range x {
			if b, err = appendPickle(b, item, depth+1); err != nil {
				return nil, err
			}
		}
		return append(b, 't'), nil
	case Dict:
		items := make([]any, 0, 2*len(x))
		for _, p := range x {
			items = append(items, p.Key, p.Value)
		}
		return each('}', 'u', items)
	}
	return nil, status.Errorf(status.NotImplemented, "a %T cannot be pickled", value).
		WithHint("what can: None, bool, int, float, str, bytes, list, tuple, dict")
}

// Value decodes the pickle, without running anything: of classes it knows the
// arrays, dtypes and scalars of NumPy, and the arrays of times of pandas. Others
// are an error. The source of the format is Lib/pickletools.py of CPython.
func (p *Pickle) Value() (any, error) {
	d := unpickler{b: p.Bytes}
	v, err := d.run()
	if err == nil {
		// A pickle can hold a value many times in a few bytes, each as a tree.
		p := plainer{left: 1<<20 + 16*len(p.Bytes)}
		v, err = p.plain(v, 0)
	}
	if err != nil {
		return nil, status.Errorf(status.NotImplemented, "the pickle cannot be read: %w", err).
			WithHint("it is Python's: vineyard.connect(...).get(id) there")
	}
	return v, nil
}

// What the machine keeps on its stack besides the values of Value.
type (
	pyMark   struct{}
	pyList   struct{ items []any }
	pyDict   struct{ items Dict }
	pySet    struct{ items []any }
	pyGlobal struct{ module, name string }
	// pyObject is what REDUCE and NEWOBJ make: a call that is not made.
	pyObject struct {
		of    any
		args  any
		state any
	}
)

type unpickler struct {
	b     []byte
	at    int
	stack []any
	memo  map[uint32]any
}

func (d *unpickler) take(n uint64) ([]byte, error) {
	if n > uint64(len(d.b)-d.at) {
		return nil, fmt.Errorf("it ends in the middle, at byte %d", len(d.b))
	}
	b := d.b[d.at : d.at+int(n)]
	d.at += int(n)
	return b, nil
}

func (d *unpickler) uint(n uint64) (uint64, error) {
	b, err := d.take(n)
	var v uint64
	for i, x := range b {
		v |= uint64(x) << (8 * i)
	}
	return v, err
}

// sized takes a length of n bytes, and as many bytes as it says.
func (d *unpickler) sized(n uint64) ([]byte, error) {
	size, err := d.uint(n)
	if err != nil {
		return nil, err
	}
	return d.take(size)
}

func (d *unpickler) line() ([]byte, error) {
	i := slices.Index(d.b[d.at:], '\n')
	if i < 0 {
		return nil, fmt.Errorf("it ends in the middle, at byte %d", len(d.b))
	}
	b := d.b[d.at : d.at+i]
	d.at += i + 1
	return b, nil
}

func (d *unpickler) push(v any) { d.stack = append(d.stack, v) }

func (d *unpickler) pop(n int) ([]any, error) {
	if n > len(d.stack) {
		return nil, fmt.Errorf("its stack is empty at byte %d", d.at)
	}
	v := slices.Clone(d.stack[len(d.stack)-n:])
	d.stack = d.stack[:len(d.stack)-n]
	return v, nil
}

// marked pops what lies above the last mark, and the mark.
func (d *unpickler) marked() ([]any, error) {
	for i := len(d.stack) - 1; i >= 0; i-- {
		if _, ok := d.stack[i].(pyMark); ok {
			v := slices.Clone(d.stack[i+1:])
			d.stack = d.stack[:i]
			return v, nil
		}
	}
	return nil, fmt.Errorf("there is no mark at byte %d", d.at)
}

func (d *unpickler) run() (any, error) {
	d.memo = map[uint32]any{}
	for {
		op, err := d.uint(1)
		if err != nil {
			return nil, err
		}
		if op == '.' {
			v, err := d.pop(1)
			if err != nil {
				return nil, err
			}
			return v[0], nil
		}
		if err := d.step(byte(op)); err != nil {
			return nil, err
		}
	}
}

// step runs one opcode.
func (d *unpickler) step(op byte) error {
	var v uint64
	var b []byte
	var list []any
	var err error
	switch op {
	case 0x80: // PROTO
		_, err = d.take(1)
	case 0x95: // FRAME
		_, err = d.take(8)
	case '(':
		d.push(pyMark{})
	case '0': // POP
		_, err = d.pop(1)
	case '1': // POP_MARK
		_, err = d.marked()
	case 'N':
		d.push(nil)
	case 0x88:
		d.push(true)
	case 0x89:
		d.push(false)
	case 'J':
		v, err = d.uint(4)
		d.push(int64(int32(v)))
	case 'K':
		v, err = d.uint(1)
		d.push(int64(v))
	case 'M':
		v, err = d.uint(2)
		d.push(int64(v))
	case 0x8a, 0x8b: // LONG1, LONG4
		if b, err = d.sized(map[byte]uint64{0x8a: 1, 0x8b: 4}[op]); err == nil {
			d.push(long(b))
		}
	case 'G':
		if b, err = d.take(8); err == nil {
			d.push(math.Float64frombits(binary.BigEndian.Uint64(b)))
		}
	case 0x8c, 'X', 0x8d: // (SHORT_, LONG_)BINUNICODE
		if b, err = d.sized(map[byte]uint64{0x8c: 1, 'X': 4, 0x8d: 8}[op]); err == nil {
			d.push(string(b))
		}
	case 'C', 'B', 0x8e, 0x96: // (SHORT_)BINBYTES(8), BYTEARRAY8
		if b, err = d.sized(map[byte]uint64{'C': 1, 'B': 4, 0x8e: 8, 0x96: 8}[op]); err == nil {
			d.push(b)
		}
	case 'U', 'T': // (SHORT_)BINSTRING
		if b, err = d.sized(map[byte]uint64{'U': 1, 'T': 4}[op]); err == nil {
			d.push(b)
		}
	case ']':
		d.push(&pyList{})
	case '}':
		d.push(&pyDict{})
	case 0x8f:
		d.push(&pySet{})
	case ')':
		d.push(Tuple{})
	case 't':
		list, err = d.marked()
		d.push(Tuple(list))
	case 0x85, 0x86, 0x87: // TUPLE1 to TUPLE3
		list, err = d.pop(int(op) - 0x84)
		d.push(Tuple(list))
	case 'a', 'e', 's', 'u', 0x90:
		err = d.extend(op)
	case 0x91: // FROZENSET
		list, err = d.marked()
		d.push(&pySet{list})
	case 'q', 'r', 0x94: // BINPUT, LONG_BINPUT, MEMOIZE
		v = uint64(len(d.memo))
		if op != 0x94 {
			v, err = d.uint(map[byte]uint64{'q': 1, 'r': 4}[op])
		}
		if len(d.stack) == 0 {
			return fmt.Errorf("its stack is empty at byte %d", d.at)
		}
		d.memo[uint32(v)] = d.stack[len(d.stack)-1]
	case 'h', 'j': // BINGET, LONG_BINGET
		v, err = d.uint(map[byte]uint64{'h': 1, 'j': 4}[op])
		x, ok := d.memo[uint32(v)]
		if !ok && err == nil {
			return fmt.Errorf("there is no value %d at byte %d", v, d.at)
		}
		d.push(x)
	case 'c': // GLOBAL
		var module, name []byte
		if module, err = d.line(); err == nil {
			name, err = d.line()
		}
		d.push(pyGlobal{string(module), string(name)})
	case 0x93: // STACK_GLOBAL
		if list, err = d.pop(2); err == nil {
			module, _ := list[0].(string)
			name, _ := list[1].(string)
			d.push(pyGlobal{module, name})
		}
	case 'R', 0x81: // REDUCE, NEWOBJ
		if list, err = d.pop(2); err == nil {
			d.push(&pyObject{of: list[0], args: list[1]})
		}
	case 'b': // BUILD
		if list, err = d.pop(2); err == nil {
			o, ok := list[0].(*pyObject)
			if !ok {
				return fmt.Errorf("it gives a %T a state at byte %d", list[0], d.at)
			}
			o.state = list[1]
			d.push(o)
		}
	default:
		return fmt.Errorf("opcode %#x at byte %d is not known", op, d.at-1)
	}
	return err
}

// extend adds to the collection on the stack.
func (d *unpickler) extend(op byte) (err error) {
	var items []any
	switch op {
	case 'a':
		items, err = d.pop(1)
	case 's':
		items, err = d.pop(2)
	default:
		items, err = d.marked()
	}
	if err != nil {
		return err
	}
	if len(d.stack) == 0 {
		return fmt.Errorf("its stack is empty at byte %d", d.at)
	}
	switch to := d.stack[len(d.stack)-1].(type) {
	case *pyList:
		to.items = append(to.items, items...)
	case *pySet:
		to.items = append(to.items, items...)
	case *pyDict:
		if len(items)%2 != 0 {
			return fmt.Errorf("a key has no value at byte %d", d.at)
		}
		for i := 0; i < len(items); i += 2 {
			to.items = append(to.items, Pair{items[i], items[i+1]})
		}
	default:
		return fmt.Errorf("it adds to a %T at byte %d", to, d.at)
	}
	return nil
}

// long decodes a two's complement number, little endian.
func long(b []byte) any {
	be := slices.Clone(b)
	slices.Reverse(be)
	n := new(big.Int).SetBytes(be)
	if len(be) > 0 && be[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(be))))
	}
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// plainer makes values of what the machine left.
type plainer struct{ left int } // how many more

func (p *plainer) plain(v any, depth int) (any, error) {
	if p.left--; p.left < 0 {
		return nil, fmt.Errorf("it holds far more values than bytes")
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested more than %d deep", maxDepth)
	}
	all := func(items []any) ([]any, error) {
		out := make([]any, len(items))
		for i, item := range items {
			var err error
			if out[i], err = p.plain(item, depth+1); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	switch x := v.(type) {
	case *pyList:
		return all(x.items)
	case *pySet:
		out, err := all(x.items)
		return Set(out), err
	case Tuple:
		out, err := all(x)
		return Tuple(out), err
	case *pyDict:
		out := make(Dict, len(x.items))
		for i, item := range x.items {
			pair, err := all([]any{item.Key, item.Value})
			if err != nil {
				return nil, err
			}
			out[i] = Pair{pair[0], pair[1]}
		}
		return out, nil
	case *pyObject:
		return p.construct(x, depth)
	case pyGlobal, pyMark:
		return nil, fmt.Errorf("it holds a %v", x)
	}
	return v, nil
}

// construct knows the few calls that arrays of NumPy and pandas are pickled as.
func (p *plainer) construct(o *pyObject, depth int) (any, error) {
	of, _ := o.of.(pyGlobal)
	args, _ := o.args.(Tuple)
	switch of.name {
	case "_reconstruct":
		return p.ndarray(o)
	case "scalar": // dtype, bytes
		if len(args) == 2 {
			d, err := dtypeOf(args[0])
			b, _ := args[1].([]byte)
			if err != nil || d.Size == 0 || len(b) < d.Size {
				return nil, fmt.Errorf("a scalar of NumPy: %w", err)
			}
			return (&Tensor{DType: d, Data: b}).At(0), nil
		}
	case "_frombuffer": // bytes, dtype, shape, order
		if len(args) == 4 {
			return p.arrayOf(args[1], args[0], args[2], args[3] == "F")
		}
	case "__pyx_unpickle_NDArrayBacked": // state: dtype, array, attributes
		if state, ok := o.state.(Tuple); ok && len(state) >= 2 {
			for _, part := range state {
				if x, ok := part.(*pyObject); ok {
					if g, _ := x.of.(pyGlobal); g.name == "_reconstruct" || g.name == "_frombuffer" {
						return p.plain(x, depth+1)
					}
				}
			}
		}
	}
	return nil, fmt.Errorf("it needs %s.%s", of.module, of.name)
}

// ndarray decodes the state of an array: version, shape, dtype, whether it is in
// Fortran's order, and the bytes or, of objects, the list of them.
func (p *plainer) ndarray(o *pyObject) (any, error) {
	state, _ := o.state.(Tuple)
	if len(state) != 5 {
		return nil, fmt.Errorf("an array of NumPy has a state of %d parts", len(state))
	}
	return p.arrayOf(state[2], state[4], state[1], state[3] == true)
}

func (p *plainer) arrayOf(dtype, data, shape any, fortran bool) (any, error) {
	d, err := dtypeOf(dtype)
	if err != nil {
		return nil, err
	}
	t := &Tensor{DType: d}
	dims, _ := shape.(Tuple)
	n := int64(1)
	for _, dim := range dims {
		x, ok := dim.(int64)
		if !ok || x < 0 || x > 0 && n > math.MaxInt64/maxElement/x {
			return nil, fmt.Errorf("an array of NumPy has the shape %v", dims)
		}
		n *= x
		t.Shape = append(t.Shape, x)
	}
	if d.Kind == Pickled {
		items, ok := data.(*pyList)
		if !ok || int64(len(items.items)) != n {
			return nil, fmt.Errorf("an array of %d objects has others", n)
		}
		list, err := p.plain(items, 1)
		if err != nil {
			return nil, err
		}
		t.Items = list.([]any)
		return t, nil
	}
	b, ok := data.([]byte)
	if !ok || int64(len(b)) != n*int64(d.Size) {
		return nil, fmt.Errorf("an array of %d elements of %s has %d bytes", n, d, len(b))
	}
	if d.Big {
		b = swapped(b, d)
		t.DType.Big = false
	}
	if fortran && len(t.Shape) > 1 {
		c := make([]byte, len(b))
		ToC(c, b, t.Shape, d.Size)
		b = c
		t.Fortran = true
	}
	t.Data = b
	return t, nil
}

// dtypeOf reads the call numpy.dtype("M8", False, True) and its state, of which
// the second part is the byte order and the last the unit of times.
func dtypeOf(v any) (DType, error) {
	o, _ := v.(*pyObject)
	if o == nil {
		return DType{}, fmt.Errorf("there is no dtype")
	}
	args, _ := o.args.(Tuple)
	if len(args) == 0 {
		return DType{}, fmt.Errorf("there is no dtype")
	}
	code, _ := args[0].(string)
	order := "<"
	state, _ := o.state.(Tuple)
	if len(state) > 1 {
		if s, ok := state[1].(string); ok && s != "" {
			order = s
		}
	}
	if code == "M8" || code == "m8" {
		unit := ""
		if len(state) > 8 {
			if extra, _ := state[8].(Tuple); len(extra) == 2 {
				if u, _ := extra[1].(Tuple); len(u) > 1 && u[1] == int64(1) {
					b, _ := u[0].([]byte)
					unit = string(b)
				}
			}
		}
		code += "[" + unit + "]"
	}
	d, ok := parseProtocol(order + code)
	if !ok {
		return d, fmt.Errorf("the dtype %q is not known", order+code)
	}
	return d, nil
}
