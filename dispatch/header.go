package dispatch

import (
	"encoding/base64"
	"strings"
	"unicode"
	"unicode/utf8"
)

// mostName is how many characters of a display name are said: one that is longer is none, and would not fit into a line.
const mostName = 100

// displayName is a name beside an address, however it stands in the database.
func displayName(s string) string {
	s = plainLine(s)
	if utf8.RuneCountInString(s) > mostName {
		s = strings.TrimSpace(string([]rune(s)[:mostName]))
	}
	return s
}

// plainLine is a text as a header may show it: in one line, without what makes a reader see another order of characters than there is
// (embeddings, overrides and isolates; https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing), and without what a mail program
// would take for an encoded word (RFC 2047) and decode. Marks that languages need stay.
func plainLine(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), r == '\u2028', r == '\u2029':
			return ' '
		case r >= '\u202a' && r <= '\u202e', r >= '\u2066' && r <= '\u2069', r == '\ufeff':
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "=?", "= ?")), " ")
}

// mostWord is how long a word of a header may be before it is encoded, so that lines can be folded (RFC 5322 §2.1.1).
const mostWord = 70

// foldable is a header's text, in encoded words where it could not be folded otherwise. Those that are not ASCII, the library encodes.
func foldable(s string) string {
	if !ascii(s) || longestWord(s) <= mostWord {
		return s
	}
	var words []string
	for len(s) > 0 { // 45 octets are 60 in base64, and 72 with what stands around them (RFC 2047 §2)
		n := min(45, len(s))
		words = append(words, "=?UTF-8?B?"+base64.StdEncoding.EncodeToString([]byte(s[:n]))+"?=")
		s = s[n:]
	}
	return strings.Join(words, " ")
}

func longestWord(s string) (most int) {
	for word := range strings.FieldsSeq(s) {
		most = max(most, len(word))
	}
	return most
}
