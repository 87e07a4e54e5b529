package demo

import (
	"strings"
	"unicode"
)

// wide are the characters that take two cells of a terminal: Korean, Chinese and Japanese writing, their punctuation and
// full-width forms, and emoji (Unicode Standard Annex #11, as far as mails of a CRM go).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x1100, Hi: 0x115f, Stride: 1}, // Hangul Jamo, leading
		{Lo: 0x2e80, Hi: 0x303e, Stride: 1}, // radicals, CJK punctuation
		{Lo: 0x3041, Hi: 0xa4cf, Stride: 1}, // Kana, compatibility Jamo, enclosed letters, Han, Yi
		{Lo: 0xa960, Hi: 0xa97c, Stride: 1}, // Hangul Jamo, extended
		{Lo: 0xac00, Hi: 0xd7a3, Stride: 1}, // Hangul syllables
		{Lo: 0xf900, Hi: 0xfaff, Stride: 1}, // compatibility Han
		{Lo: 0xfe30, Hi: 0xfe6f, Stride: 1}, // compatibility and small forms
		{Lo: 0xff01, Hi: 0xff60, Stride: 1}, // full-width forms
		{Lo: 0xffe0, Hi: 0xffe6, Stride: 1},
	},
	R32: []unicode.Range32{
		{Lo: 0x1f300, Hi: 0x1f64f, Stride: 1}, // pictographs, faces
		{Lo: 0x1f680, Hi: 0x1f6ff, Stride: 1},
		{Lo: 0x1f900, Hi: 0x1faff, Stride: 1},
		{Lo: 0x20000, Hi: 0x3fffd, Stride: 1}, // Han, further planes
	},
}

// cells is how many cells of a terminal a character takes.
func cells(r rune) int {
	switch {
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// width is how many cells a text takes.
func width(s string) (n int) {
	for _, r := range s {
		n += cells(r)
	}
	return n
}

// fit makes a text exactly n cells wide: padded, or cut with an ellipsis.
func fit(s string, n int) string {
	s = printable(s)
	if w := width(s); w <= n {
		return s + strings.Repeat(" ", n-w)
	}
	var b strings.Builder
	left := n - 1
	for _, r := range s {
		if cells(r) > left {
			break
		}
		b.WriteRune(r)
		left -= cells(r)
	}
	return b.String() + "…" + strings.Repeat(" ", left)
}

// printable replaces what could move the cursor or colour the screen: a subject is somebody else's text.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '·'
		}
		return r
	}, s)
}
