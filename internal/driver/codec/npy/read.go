package npy

import (
	"encoding/binary"
	"io"
	"math"
	"math/bits"
	"strings"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// maxElements bounds an array, in elements, as package typed does.
const maxElements = 1 << 50

// Read reads one array, to the end of r. Its elements are in one buffer of alloc,
// which is asked once, for a number of bytes over 0; that it panics if it has none
// is left to the caller. Big endian elements are turned round, and those in
// Fortran's order put into C's, for which a second buffer of that size is needed
// for a while.
//
// A reader that knows how much it has left (one with a method Len, or a file) is
// asked before anything is allocated, as the shape may say anything.
func Read(r io.Reader, alloc func(n int) []byte) (*typed.Tensor, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	d, err := h.dtype()
	if err != nil {
		return nil, err
	}
	n, ok := size(h.shape, d.Size)
	if !ok {
		return nil, status.Errorf(status.Invalid, "no array has the shape %v", h.shape)
	}
	if have := remaining(r); have >= 0 && have < n {
		return nil, h.truncated(have, n)
	} else if have > n {
		return nil, trailing(have - n)
	}
	t := &typed.Tensor{DType: d, Shape: h.shape, Fortran: h.fortran}
	t.DType.Big = false
	if n > 0 {
		t.Data = alloc(int(n))[:n]
	}
	from := t.Data
	if turn := h.fortran && !typed.SameOrder(h.shape); turn && n > 0 {
		from = make([]byte, n)
	}
	if have, err := io.ReadFull(r, from); err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil, h.truncated(int64(have), n)
	} else if err != nil {
		return nil, err
	}
	// What checks a sum, as a zip does, says so at the end.
	switch more, err := io.ReadFull(r, make([]byte, 1)); {
	case more > 0:
		return nil, trailing(-1)
	case err != io.EOF:
		return nil, err
	}
	if d.Big {
		swap(from, unit(d))
	}
	if len(from) > 0 && &from[0] != &t.Data[0] {
		typed.ToC(t.Data, from, h.shape, d.Size)
	}
	return t, nil
}

// dtype returns the dtype of the elements, if tensors can have it.
func (h header) dtype() (typed.DType, error) {
	name := h.descr
	if strings.IndexByte("<>|=", (name + " ")[0]) < 0 {
		name = "=" + name // not i8, which is a byte to ParseDType and 8 of them to NumPy
	}
	d, err := typed.ParseDType(name)
	switch {
	case name[1:] == "O":
		return d, refusePickle("it is an array of objects")
	case err != nil:
		return d, status.Errorf(status.NotImplemented, "its elements are of dtype %q, which tensors cannot have", h.descr).
			WithHint("in Python, array.astype(...): float64 has the most digits, and times need a unit, such as datetime64[ns]")
	case d.Kind == typed.Pickled:
		return d, refusePickle("it is an array of objects")
	case d.Kind == typed.Raw:
		return d, status.Errorf(status.NotImplemented, "its elements are of dtype %q, bytes of a fixed length, which cannot be stored", h.descr).
			WithHint("in Python, array.astype(str) for text, array.view(np.uint8) for bytes")
	case d.Size == 0:
		return d, status.Errorf(status.Invalid, "its elements are of dtype %q, which has no bytes", h.descr)
	}
	return d, nil
}

// size returns how many bytes an array has; ok is false for more than any memory.
func size(shape []int64, element int) (n int64, ok bool) {
	n = 1
	empty := false
	for _, d := range shape {
		if d == 0 {
			empty = true
			continue
		}
		if d < 0 || n > maxElements/d {
			return 0, false
		}
		n *= d
	}
	if empty {
		return 0, true
	}
	hi, lo := bits.Mul64(uint64(n), uint64(element))
	return int64(lo), hi == 0 && lo <= math.MaxInt64
}

func (h header) truncated(have, need int64) error {
	return status.Errorf(status.EndOfFile, "truncated: there are %d bytes of data, the shape %v of %s needs %d", have, h.shape, h.descr, need)
}

func trailing(n int64) error {
	err := status.Errorf(status.Invalid, "there are %d bytes after the array", n)
	if n < 0 {
		err = status.Errorf(status.Invalid, "there are bytes after the array")
	}
	return err.WithHint("several arrays go into an .npz file: np.savez")
}

// remaining returns how many bytes a reader has left, -1 if it does not know.
func remaining(r io.Reader) int64 {
	if l, ok := r.(interface{ Len() int }); ok {
		return int64(l.Len())
	}
	s, ok := r.(io.Seeker)
	if !ok {
		return -1
	}
	here, err := s.Seek(0, io.SeekCurrent)
	if err != nil {
		return -1
	}
	end, err := s.Seek(0, io.SeekEnd)
	if err != nil {
		return -1
	}
	if _, err = s.Seek(here, io.SeekStart); err != nil {
		return -1
	}
	return max(end-here, 0)
}

// unit is how many bytes of an element are turned round together.
func unit(d typed.DType) int {
	switch d.Kind {
	case typed.Complex:
		return d.Size / 2
	case typed.Unicode:
		return 4
	}
	return d.Size
}

// swap turns the bytes of every unit round.
func swap(b []byte, unit int) {
	le := binary.LittleEndian
	switch unit {
	case 2:
		for ; len(b) >= 2; b = b[2:] {
			le.PutUint16(b, bits.ReverseBytes16(le.Uint16(b)))
		}
	case 4:
		for ; len(b) >= 4; b = b[4:] {
			le.PutUint32(b, bits.ReverseBytes32(le.Uint32(b)))
		}
	case 8:
		for ; len(b) >= 8; b = b[8:] {
			le.PutUint64(b, bits.ReverseBytes64(le.Uint64(b)))
		}
	}
}
