//go:build linux

package typed_test

import (
	"encoding/hex"
	"testing"

	"github.com/v6d-go/v6d/typed"
)

// FuzzPickle: no panic, and no memory beyond what the pickle holds.
func FuzzPickle(f *testing.F) {
	for _, r := range recordings(f) {
		for _, b := range r.Blobs {
			if raw, err := hex.DecodeString(b.Hex); err == nil && len(raw) > 2 && raw[0] == 0x80 {
				f.Add(raw)
			}
		}
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		v, err := (&typed.Pickle{Bytes: b}).Value()
		if err == nil && len(b) < 1<<12 {
			_ = show(v)
		}
	})
}

// FuzzSchema: the numbers in a schema are checked without a panic.
func FuzzSchema(f *testing.F) {
	f.Add([]byte("ARROW1\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00\x10\x00\x00\x00ARROW1"))
	f.Add([]byte("\xff\xff\xff\xff\x10\x00\x00\x00\x10\x00\x00\x00\x00\x00\x0a\x00\x0c\x00\x06\x00\x05\x00\x08\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = typed.CheckSchema(b)
	})
}
