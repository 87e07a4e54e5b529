package demo

import (
	"testing"
	"unicode/utf8"
)

func TestFit(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		text string
		n    int
		want string
	}{
		"padded":                {"abc", 5, "abc  "},
		"as it is":              {"abc", 3, "abc"},
		"cut":                   {"abcdef", 4, "abc…"},
		"Korean padded":         {"미팅", 6, "미팅  "},
		"Korean as it is":       {"미팅", 4, "미팅"},
		"Korean cut":            {"미팅 등록", 6, "미팅 …"},
		"cut within a wide one": {"미팅등록", 6, "미팅… "},
		"square metres":         {"84㎡", 5, "84㎡ "},
		"an accent":             {"e\u0301", 2, "e\u0301 "},
		"escapes":               {"a\x1b[31mb\nc\x9b", 9, "a·[31mb·…"},
		"nothing":               {"", 2, "  "},
		"no room":               {"미팅", 1, "…"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := fit(test.text, test.n); got != test.want {
				t.Errorf("%q; want %q", got, test.want)
			}
		})
	}
}

func FuzzFit(f *testing.F) {
	f.Add("조현우 고객님 미팅 등록 · 3월 4일 (목) 오후 3:00", 20)
	f.Add("\x1b]8;;https://example.com\x07", 7)
	f.Fuzz(func(t *testing.T, text string, n int) {
		n = 1 + (n&0xff+256)%256
		got := fit(text, n)
		if width(got) != n {
			t.Errorf("fit(%q, %d) is %d wide: %q", text, n, width(got), got)
		}
		if !utf8.ValidString(got) || printable(got) != got {
			t.Errorf("fit(%q, %d) lets something through: %q", text, n, got)
		}
	})
}
