package npy

import (
	"archive/zip"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/v6d-go/v6d/internal/status"
	"github.com/v6d-go/v6d/typed"
)

const (
	suffix = ".npy"
	// ratio is how much the deflate format can shrink at best, RFC 1951.
	ratio = 1032
	// encrypted is the flag of a member that needs a password.
	encrypted = 1
	// utf8Name is the flag of a name that is not in the code page of DOS.
	utf8Name = 0x800
)

// plainSize is up to what size a member says in front how long it is, which C++
// readers of .npz count on; a zip says it behind a longer one. Tests lower it.
var plainSize = int64(math.MaxUint32 - 1)

// ReadZip reads all arrays of an .npz file, with their names. The buffers are
// those of [Read].
func ReadZip(r io.ReaderAt, size int64, alloc func(n int) []byte) (*typed.Sequence, error) {
	z, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are no paths here
		return nil, status.Errorf(status.Invalid, "it is no .npz file: %w", err)
	}
	s := &typed.Sequence{Items: []any{}, Names: []string{}}
	seen := map[string]bool{}
	total := uint64(0)
	for _, f := range z.File {
		name, ok := strings.CutSuffix(f.Name, suffix)
		if !ok || !utf8.ValidString(name) {
			return nil, status.Errorf(status.Invalid, "member %q is no .npy file", f.Name).
				WithHint("an .npz file holds only those")
		}
		if seen[name] {
			return nil, status.Errorf(status.Invalid, "there are two members %q", f.Name)
		}
		seen[name] = true
		// Members that share their bytes could ask for any amount of memory.
		if total += min(f.CompressedSize64, math.MaxInt64); total > uint64(size) {
			return nil, status.Errorf(status.Invalid, "its members have more bytes than it has itself")
		}
		s.Names = append(s.Names, name)
	}
	for _, f := range z.File {
		t, err := readMember(f, alloc)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", f.Name, err)
		}
		s.Items = append(s.Items, t)
	}
	return s, nil
}

// sized is a reader that knows how much it has left.
type sized struct {
	io.Reader
	left int
}

func (s *sized) Len() int { return s.left }

func (s *sized) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.left -= n
	return n, err
}

func readMember(f *zip.File, alloc func(n int) []byte) (*typed.Tensor, error) {
	most := f.CompressedSize64
	switch {
	case f.Flags&encrypted != 0:
		return nil, status.Errorf(status.NotImplemented, "it is encrypted")
	case f.Method == zip.Deflate:
		most = f.CompressedSize64 * ratio
	case f.Method != zip.Store:
		return nil, status.Errorf(status.NotImplemented, "it is compressed by method %d", f.Method).
			WithHint("np.savez and np.savez_compressed write what can be read")
	}
	if f.UncompressedSize64 > most {
		return nil, status.Errorf(status.Invalid, "its %d bytes cannot be in %d", f.UncompressedSize64, f.CompressedSize64)
	}
	r, err := f.Open()
	if err != nil {
		return nil, status.Errorf(status.Invalid, "%w", err)
	}
	defer r.Close()
	t, err := Read(&sized{r, int(f.UncompressedSize64)}, alloc)
	if errors.Is(err, zip.ErrChecksum) {
		return nil, status.Errorf(status.Invalid, "it is damaged: its checksum is wrong")
	}
	return t, err
}

// WriteZip writes arrays as np.savez does. Without names they are arr_0, arr_1
// and so on.
func WriteZip(w io.Writer, s *typed.Sequence) error {
	if s.Names != nil && len(s.Names) != len(s.Items) {
		return status.Errorf(status.Invalid, "there are %d names for %d arrays", len(s.Names), len(s.Items))
	}
	z := zip.NewWriter(w)
	seen := map[string]bool{}
	for i, item := range s.Items {
		name := "arr_" + strconv.Itoa(i)
		if s.Names != nil {
			name = s.Names[i]
		}
		t, ok := item.(*typed.Tensor)
		if !ok {
			return status.Errorf(status.Invalid, "item %q is a %T, not an array", name, item).
				WithHint("an .npz file holds only arrays")
		}
		if seen[name] {
			return status.Errorf(status.Invalid, "two arrays are called %q", name)
		}
		seen[name] = true
		if !utf8.ValidString(name) || len(name) > math.MaxUint16-len(suffix) {
			return status.Errorf(status.Invalid, "no member of a zip can be called %.80q", name)
		}
		if err := writeMember(z, name+suffix, t); err != nil {
			return fmt.Errorf("array %q: %w", name, err)
		}
	}
	return z.Close()
}

// writeMember writes an array twice, first to know its length and checksum.
func writeMember(z *zip.Writer, name string, t *typed.Tensor) error {
	var sum summer
	if err := Write(&sum, t); err != nil {
		return err
	}
	h := &zip.FileHeader{
		Name: name, Method: zip.Store, Flags: utf8Name, CreatorVersion: 20, ReaderVersion: 20,
		CRC32: sum.crc, CompressedSize64: uint64(sum.n), UncompressedSize64: uint64(sum.n),
		// 1980-01-01, so that the bytes depend on the arrays alone.
		ModifiedDate: 1<<5 | 1, //nolint:staticcheck // CreateRaw does not look at Modified
	}
	create := z.CreateRaw
	if sum.n > plainSize {
		create = z.CreateHeader
	}
	m, err := create(h)
	if err != nil {
		return err
	}
	return Write(m, t)
}

// summer counts and sums up what is written to it.
type summer struct {
	n   int64
	crc uint32
}

func (s *summer) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	s.crc = crc32.Update(s.crc, crc32.IEEETable, b)
	return len(b), nil
}
