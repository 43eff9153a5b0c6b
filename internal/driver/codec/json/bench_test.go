package json

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
)

// flatRows is text of about size bytes, of rows as services log them.
func flatRows(size int) []byte {
	var b bytes.Buffer
	rng := rand.New(rand.NewPCG(1, 2))
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `{"id":%d,"name":"user %d","price":%.2f,"score":%v,"ok":%v,"city":"Zürich","note":null}`+"\n",
			i, rng.IntN(1e6), rng.Float64()*1000, rng.Float64(), rng.IntN(2) == 0)
	}
	return b.Bytes()
}

func BenchmarkReadTable(b *testing.B) {
	for name, text := range map[string][]byte{
		"flat":  flatRows(32 << 20),
		"ints":  []byte(strings.Repeat(`{"a":1,"b":22,"c":333,"d":4444,"e":55555}`+"\n", 1<<19)),
		"lists": []byte(strings.Repeat(`{"a":[1,2,3,4,5,6,7,8],"b":["x","yy"]}`+"\n", 1<<19)),
		"text":  []byte(strings.Repeat(`{"a":"`+strings.Repeat("lorem ipsum ", 20)+`"}`+"\n", 1<<17)),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ReadTable(bytes.NewReader(text), Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWriteTable(b *testing.B) {
	text := flatRows(32 << 20)
	t, err := ReadTable(bytes.NewReader(text), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := WriteTable(io.Discard, t); err != nil {
			b.Fatal(err)
		}
	}
	runtime.KeepAlive(t)
}

func BenchmarkReadValue(b *testing.B) {
	text := append([]byte{'['}, bytes.ReplaceAll(bytes.TrimSpace(flatRows(8<<20)), []byte("\n"), []byte(","))...)
	text = append(text, ']')
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := ReadValue(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}
