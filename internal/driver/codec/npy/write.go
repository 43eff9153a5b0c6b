package npy

import (
	"encoding/binary"
	"io"
	"unicode/utf8"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

// maxElement bounds an element, in bytes, as package typed does.
const maxElement = 1 << 28

// Write writes an array as np.save does. Strings become elements of a fixed
// length, that of the longest.
func Write(w io.Writer, t *typed.Tensor) error {
	if t.DType.Kind == typed.String {
		return writeStrings(w, t)
	}
	if err := writable(t); err != nil {
		return err
	}
	h := header{descr: t.DType.Protocol(), shape: t.Shape}
	b, err := h.bytes()
	if err != nil {
		return err
	}
	if _, err := w.Write(b); err != nil || len(t.Data) == 0 {
		return err
	}
	_, err = w.Write(t.Data)
	return err
}

// writable checks that a file can say what a tensor is.
func writable(t *typed.Tensor) error {
	if t.DType.Kind == typed.Pickled {
		return status.Errorf(status.NotImplemented, "an array of objects would have to be pickled, which is not done in files").
			WithHint("in Python, np.save(file, vineyard.connect(...).get(id))")
	}
	if d, err := typed.ParseDType(t.DType.Protocol()); err != nil || d != t.DType || d.Size == 0 {
		return status.Errorf(status.NotImplemented, "an array of %s cannot be written", t.DType)
	}
	if n, ok := size(t.Shape, t.DType.Size); !ok || n != int64(len(t.Data)) {
		return status.Errorf(status.Invalid, "%d bytes do not have the shape %v of %s", len(t.Data), t.Shape, t.DType)
	}
	return nil
}

// writeStrings writes UTF-32, filled up with zeros.
func writeStrings(w io.Writer, t *typed.Tensor) error {
	longest := 1
	for i := range t.Text.Len() {
		s := t.Text.Value(i)
		bad := ""
		switch {
		case t.Text.IsNull(i):
			bad = "is null"
		case !utf8.ValidString(s):
			bad = "is not UTF-8"
		case s != "" && s[len(s)-1] == 0:
			bad = "ends with a zero byte, which NumPy would cut off"
		}
		if bad != "" {
			return status.Errorf(status.Invalid, "row %d %s: NumPy's files have no place for that", i, bad).
				WithHint("write parquet or csv")
		}
		longest = max(longest, utf8.RuneCountInString(s))
	}
	d := typed.DType{Kind: typed.Unicode, Size: 4 * longest}
	if d.Size > maxElement {
		return status.Errorf(status.Invalid, "a string of %d characters is too long for NumPy's files, where all strings take as much as the longest", longest).
			WithHint("write parquet or csv")
	}
	if n, ok := size(t.Shape, d.Size); !ok || n != int64(t.Text.Len())*int64(d.Size) {
		return status.Errorf(status.Invalid, "%d strings do not have the shape %v", t.Text.Len(), t.Shape)
	}
	h := header{descr: d.Protocol(), shape: t.Shape}
	b, err := h.bytes()
	if err != nil {
		return err
	}
	for i := range t.Text.Len() {
		end := len(b) + d.Size
		for _, r := range t.Text.Value(i) {
			b = binary.LittleEndian.AppendUint32(b, uint32(r))
		}
		b = append(b, make([]byte, end-len(b))...)
		if len(b) >= 1<<16 {
			if _, err := w.Write(b); err != nil {
				return err
			}
			b = b[:0]
		}
	}
	_, err = w.Write(b)
	return err
}
