package typed

import "unsafe"

// From Fortran's order to C's: both ends of the shape change places, so for every
// index in the dimensions between them a matrix of the first and the last one is
// transposed. That is done in tiles, because a line of the cache that was fetched
// for one element holds its neighbours in one of the two directions.

// tile is the length of a tile's sides, in elements.
const tile = 32

// SameOrder reports whether elements of a shape lie in Fortran's order as in C's.
func SameOrder(shape []int64) bool { return len(beyondOne(shape)) < 2 }

// beyondOne returns the dimensions that are not 1.
func beyondOne(shape []int64) []int {
	var dims []int
	for _, d := range shape {
		if d != 1 {
			dims = append(dims, int(d))
		}
	}
	return dims
}

// ToC copies elements of size bytes that lie in Fortran's order into C's.
func ToC(dst, src []byte, shape []int64, size int) {
	dims := beyondOne(shape)
	if len(src) == 0 || len(dims) < 2 {
		copy(dst, src)
		return
	}
	switch size {
	case 1:
		planes(dims, transpose(dst, src))
	case 2:
		planes(dims, transpose(view[[2]byte](dst), view[[2]byte](src)))
	case 4:
		planes(dims, transpose(view[[4]byte](dst), view[[4]byte](src)))
	case 8:
		planes(dims, transpose(view[[8]byte](dst), view[[8]byte](src)))
	case 16:
		planes(dims, transpose(view[[16]byte](dst), view[[16]byte](src)))
	default:
		planes(dims, func(to, from, rows, columns, toStep, fromStep int) {
			for i := range rows {
				for j := range columns {
					d, s := (to+i*toStep+j)*size, (from+j*fromStep+i)*size
					copy(dst[d:d+size], src[s:s+size])
				}
			}
		})
	}
}

// view is the bytes as arrays of them, which need no alignment.
func view[T any](b []byte) []T {
	var zero T
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(zero)))
}

// mover copies a matrix of rows and columns, which begins at to and from: the
// next row is toStep and 1 further on, the next column 1 and fromStep.
type mover func(to, from, rows, columns, toStep, fromStep int)

// planes calls move for every matrix of the first and the last dimension.
func planes(dims []int, move mover) {
	last := len(dims) - 1
	fromStep, toStep := 1, 1
	for _, d := range dims[:last] {
		fromStep *= d
	}
	for _, d := range dims[1:] {
		toStep *= d
	}
	index := make([]int, len(dims))
	for to, from := 0, 0; ; {
		move(to, from, dims[0], dims[last], toStep, fromStep)
		i := last - 1
		toJump, fromJump := dims[last], fromStep
		for ; i > 0; i-- {
			fromJump /= dims[i]
			if index[i]++; index[i] < dims[i] {
				to, from = to+toJump, from+fromJump
				break
			}
			to, from = to-toJump*(dims[i]-1), from-fromJump*(dims[i]-1)
			index[i] = 0
			toJump *= dims[i]
		}
		if i <= 0 {
			return
		}
	}
}

// transpose goes through a copy of each tile: lines of the source that are a power
// of two apart would push each other out of the cache.
func transpose[T any](dst, src []T) mover {
	return func(to, from, rows, columns, toStep, fromStep int) {
		var square [tile * tile]T
		for i := 0; i < rows; i += tile {
			high := min(tile, rows-i)
			for j := 0; j < columns; j += tile {
				wide := min(tile, columns-j)
				for k := range wide {
					at := from + (j+k)*fromStep + i
					copy(square[k*tile:], src[at:at+high])
				}
				for r := range high {
					at := to + (i+r)*toStep + j
					out := dst[at : at+wide]
					for k := range out {
						out[k] = square[(k*tile+r)&(tile*tile-1)]
					}
				}
			}
		}
	}
}
