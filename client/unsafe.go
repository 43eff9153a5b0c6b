package client

import (
	"unsafe"

	"github.com/v6d-go/v6d/internal/sys"
)

// pageOffset returns how far into a page a slice starts.
func pageOffset(b []byte) int {
	return int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % uintptr(sys.PageSize))
}

// pagesInside returns the whole pages inside b.
func pagesInside(b []byte) []byte {
	lo := pageOffset(b)
	hi := len(b) - (lo+len(b))%sys.PageSize
	skip := 0
	if lo > 0 {
		skip = sys.PageSize - lo
	}
	if hi <= skip {
		return nil
	}
	return b[skip:hi]
}

// pagesAround returns the pages of a mapping that an extent touches.
func pagesAround(m []byte, off, size int64) []byte {
	page := int64(sys.PageSize)
	lo := off / page * page
	hi := min((off+size+page-1)/page*page, int64(len(m)))
	return m[lo:hi]
}
