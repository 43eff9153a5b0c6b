package config

import (
	"math"
	"strings"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "1": 1, "1000000": 1000000, "4GiB": 4 << 30, "512Mi": 512 << 20, "1.5G": 3 << 29, "1.5GiB": 3 << 29,
		"64K": 64 << 10, "64k": 64 << 10, "64KB": 64000, "2mb": 2000000, "1TB": 1e12, "1t": 1 << 40, " 8 MiB ": 8 << 20,
		"100B": 100, "0.5K": 512, "1PiB": 1 << 50, "2P": 2 << 50, "1pb": 1e15, "9007199254740993": 1<<53 + 1,
		"4611686018427387903": 1<<62 - 1,
	} {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", " ", "-1", "+1", "GiB", "1.2.3", ".", "1e3", "0x10", "1 2", "1XB", "4 G iB", "NaN", "Inf", "inf", "1_000",
		"4611686018427387904", "4096PiB", "8E", strings.Repeat("9", 400), "1\x00",
	} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0B", 1: "1B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 1 << 20: "1MiB", 1<<20 - 1: "1MiB",
		1<<20 - 100: "1023.9KiB", 3 << 29: "1.5GiB", 1 << 40: "1TiB", 1 << 50: "1PiB", -1536: "-1.5KiB",
		math.MaxInt64: "8192PiB", math.MinInt64: "-8192PiB",
	} {
		if got := FormatSize(in); got != want {
			t.Errorf("FormatSize(%d) = %s, want %s", in, got, want)
		}
	}
}

// FuzzSize: what is read is written in a form that reads as nearly the same.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"4GiB", "1.5G", "1023.97KiB", "0", "64KB", "4095PiB", "9007199254740993", "1..2", "٣"} {
		f.Add(s, int64(math.MinInt64))
	}
	f.Add("", int64(1<<20-1))
	f.Fuzz(func(t *testing.T, s string, n int64) {
		_ = FormatSize(n)
		if read, err := ParseSize(s); err == nil {
			n = read
			if n < 0 || n >= 1<<62 {
				t.Fatalf("%q reads as %d", s, n)
			}
		}
		if n < 0 || n >= 1<<62 {
			return
		}
		text := FormatSize(n)
		again, err := ParseSize(text)
		if n > 1<<62-1<<57 && err != nil {
			return // rounded up to what is too large
		}
		if err != nil || math.Abs(float64(again)-float64(n)) > float64(n)*0.05+1 || n < 1024 && again != n {
			t.Fatalf("%d is written as %s, which reads as %d, %v", n, text, again, err)
		}
		if FormatSize(again) != text {
			t.Fatalf("%d is written as %s, %d as %s", n, text, again, FormatSize(again))
		}
	})
}
