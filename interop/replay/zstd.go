package replay

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// maxChunk is the size of the buffer into which clients read a chunk.
const maxChunk = 131591

// deflate encodes blobs as one zstd stream that is never ended, in chunks of
// one stored block each: legal input that needs no compressor.
func deflate(blobs [][]byte) []byte {
	const (
		window = 0x58    // 2 MiB, as the reference
		block  = 1 << 17 // the format's largest
	)
	head := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	var out []byte
	for _, blob := range blobs {
		for len(blob) > 0 {
			n := min(len(blob), block)
			out = binary.LittleEndian.AppendUint64(out, uint64(len(head)+3+n))
			out = append(out, head...)
			out = append(out, byte(n<<3), byte(n<<3>>8), byte(n<<3>>16)) // stored, not the last
			out = append(out, blob[:n]...)
			blob, head = blob[n:], nil
		}
	}
	return out
}

// inflate returns what a zstd stream that has not ended decodes to, at most
// limit bytes. The standard library has a decoder, but only inside debug/elf:
// the stream becomes the compressed section of an ELF file. That makes it a
// second opinion on the daemon's own compressor.
func inflate(stream []byte, limit int) ([]byte, error) {
	const headers = 64 + 3*64 // file header and three section headers
	names := "\x00.z\x00"
	section := elf.Chdr64{Type: uint32(elf.COMPRESS_ZSTD), Size: uint64(limit), Addralign: 1}
	start := uint64(headers + len(names))
	length := uint64(binary.Size(section) + len(stream))

	var file bytes.Buffer
	header := elf.Header64{Type: uint16(elf.ET_REL), Version: uint32(elf.EV_CURRENT), Shoff: 64, Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2}
	copy(header.Ident[:], elf.ELFMAG)
	header.Ident[elf.EI_CLASS], header.Ident[elf.EI_DATA], header.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	for _, part := range []any{
		header,
		elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_COMPRESSED), Off: start, Size: length},
		elf.Section64{Type: uint32(elf.SHT_STRTAB), Off: headers, Size: uint64(len(names))},
		[]byte(names), section, stream,
	} {
		if err := binary.Write(&file, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	f, err := elf.NewFile(bytes.NewReader(file.Bytes()))
	if err != nil {
		return nil, err
	}
	// The stream has no end, so neither has reading it a good one.
	out, _ := io.ReadAll(io.LimitReader(f.Section(".z").Open(), int64(limit)))
	return out, nil
}

// A stream reads the compressed blobs of one reply, chunk by chunk.
type stream struct {
	take    func(n int) ([]byte, error)
	encoded []byte
	decoded int
}

// blob reads the chunks of one blob, not one more, and returns its bytes.
func (s *stream) blob(size int) ([]byte, error) {
	want := s.decoded + size
	for {
		head, err := s.take(8)
		if err != nil {
			return nil, fmt.Errorf("chunk header after %d of %d bytes: %w", s.decoded, want, err)
		}
		n := binary.LittleEndian.Uint64(head)
		if n == 0 || n > maxChunk {
			return nil, fmt.Errorf("chunk of %d bytes, allowed are 1 to %d", n, maxChunk)
		}
		chunk, err := s.take(int(n))
		if err != nil {
			return nil, err
		}
		s.encoded = append(s.encoded, chunk...)
		out, err := inflate(s.encoded, want+1)
		switch {
		case err != nil:
			return nil, err
		case len(out) > want:
			return nil, fmt.Errorf("a chunk crosses the end of a blob of %d bytes", size)
		case len(out) == want:
			blob := out[want-size:]
			s.decoded = want
			return blob, nil
		}
	}
}
