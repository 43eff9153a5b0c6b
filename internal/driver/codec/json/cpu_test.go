package json

import (
	"bytes"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(0, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func TestCPU(t *testing.T) {
	for name, text := range map[string][]byte{
		"flat":  flatRows(1 << 20),
		"ints":  []byte(strings.Repeat(`{"a":1,"b":22,"c":333,"d":4444,"e":55555}`+"\n", 1<<19)),
		"lists": []byte(strings.Repeat(`{"a":[1,2,3,4,5,6,7,8],"b":["x","yy"]}`+"\n", 1<<19)),
		"text":  []byte(strings.Repeat(`{"a":"`+strings.Repeat("lorem ipsum ", 20)+`"}`+"\n", 1<<17)),
	} {
		best, bestw, bestv := 0.0, 0.0, 0.0
		for range 4 {
			start := cpu()
			x, err := ReadTable(bytes.NewReader(text), Options{})
			if err != nil {
				t.Fatal(err)
			}
			best = max(best, float64(len(text))/1e6/(cpu()-start).Seconds())
			start = cpu()
			_ = WriteTable(io.Discard, x)
			bestw = max(bestw, float64(len(text))/1e6/(cpu()-start).Seconds())
			start = cpu()
			part := text[:bytes.LastIndexByte(text[:1<<22], '\n')]
			v := append(append([]byte{'['}, bytes.ReplaceAll(part, []byte("\n"), []byte(","))...), ']')
			if _, err := ReadValue(bytes.NewReader(v)); err != nil {
				t.Fatal(err)
			}
			bestv = max(bestv, float64(len(v))/1e6/(cpu()-start).Seconds())
		}
		t.Logf("%s: read %.0f write %.0f value %.0f MB/s of CPU", name, best, bestw, bestv)
	}
}
