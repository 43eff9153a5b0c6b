package output

import "testing"

func TestOneLine(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "plain": "plain", "東京 🎉 é": "東京 🎉 é", `a\n"b"'c'`: `a\n"b"'c'`,
		"a\nb\tc\r": `a\nb\tc\r`, "\x1b[31mred\a": `\x1b[31mred\a`, "x\u202ey\u2028": `x\u202ey\u2028`, "\x00\x7f\u0085\xff": `\x00\x7f\u0085\ufffd`,
	} {
		if got := OneLine(text); got != want {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}
