package daemon

import (
	"strings"
	"unicode/utf8"
)

// Mask hides the addresses in a text, but for their first letters and their domains: kim@example.com becomes k***@example.com.
func Mask(text string) string {
	return address.ReplaceAllStringFunc(text, func(found string) string {
		local, domain, _ := strings.Cut(found, "@")
		_, size := utf8.DecodeRuneInString(local)
		return local[:size] + "***@" + domain
	})
}
