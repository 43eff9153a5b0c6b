package replay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"testing"
)

// TestInflateGolden decodes the golden chunk of protocol.md §8.3.
func TestInflateGolden(t *testing.T) {
	chunk, err := hex.DecodeString("28b52ffd00580c0100d00000010002000300040005000600070008000900000000000000095402000301")
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for i := range uint64(10) {
		want = binary.LittleEndian.AppendUint64(want, i)
	}
	if got, err := inflate(chunk, len(want)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("inflate: expected %x, got %x, %v", want, got, err)
	}
}

// TestDeflate reads back what deflate writes, blob by blob.
func TestDeflate(t *testing.T) {
	blobs := [][]byte{filler(40, 1), filler(24, 2), nil, filler(300_000, 3)}
	encoded := bytes.NewBuffer(deflate(blobs))
	s := &stream{take: func(n int) ([]byte, error) { return encoded.Next(n), nil }}
	for i, blob := range blobs {
		if len(blob) == 0 {
			continue
		}
		if got, err := s.blob(len(blob)); err != nil || !bytes.Equal(got, blob) {
			t.Fatalf("blob %d: expected %d equal bytes, got %d, %v", i, len(blob), len(got), err)
		}
	}
	if encoded.Len() != 0 {
		t.Errorf("%d bytes left", encoded.Len())
	}
}
