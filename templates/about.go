package templates

import (
	"slices"
	"strings"

	"golang.org/x/net/html"
)

// Every mail tells why it came: with the block about, or else with the rule's about. A template that reads .about has a place for
// it; to the others it is added below.

// reason settles what .about is in this mail. The data are the mail's own.
func (v *variant) reason(data map[string]any) error {
	if !v.has(blockAbout) {
		return nil
	}
	text, err := v.execute(v.plain, blockAbout, data)
	data[keyAbout] = oneLine(text)
	return err
}

// reads says whether a block, or one that it calls, reads one of some names of the data in any of its branches.
func (v *variant) reads(block string, names ...string) bool {
	root, found := &anything{}, false
	w := &walker{variant: v, read: func(shape any, part string) {
		found = found || shape == any(root) && slices.Contains(names, part)
	}}
	w.block(block, root)
	return found
}

// footer is what a block that has no place for .about is to have below it; empty: nothing.
func (v *variant) footer(block string, data map[string]any) string {
	about, _ := data[keyAbout].(string)
	if about = oneLine(about); about == "" || v.tells[block] {
		return ""
	}
	return v.locale.why + about
}

// withFooter puts a sentence at the end of a page, in a colour that can be read on a light and on a dark ground.
func withFooter(page, sentence string) string {
	if sentence == "" {
		return page
	}
	const style = "max-width:600px;margin:0 auto;padding:24px 12px;font-family:sans-serif;font-size:12px;line-height:19px;color:#6f767c"
	at := bodyEnd(page)
	return page[:at] + `<div style="` + style + `">` + html.EscapeString(sentence) + "</div>\n" + page[at:]
}

// bodyEnd is the offset of the last </body>, or else of the last </html>, or else the page's end.
func bodyEnd(page string) int {
	z := html.NewTokenizer(strings.NewReader(page))
	at, ends := 0, map[string]int{}
	for token := z.Next(); token != html.ErrorToken; token = z.Next() {
		size := len(z.Raw())
		if name, _ := z.TagName(); token == html.EndTagToken {
			ends[string(name)] = at
		}
		at += size
	}
	for _, name := range []string{"body", "html"} {
		if end, ok := ends[name]; ok {
			return end
		}
	}
	return len(page)
}
