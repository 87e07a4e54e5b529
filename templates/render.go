package templates

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"golang.org/x/net/html"
)

// maxOutput bounds a rendered block. No relay takes a mail that is near it once it is encoded; a template that loops over
// too much is stopped before it fills the memory.
const maxOutput = 8 << 20

var errTooLong = fmt.Errorf("it grew over %d bytes\n    → load fewer rows", maxOutput)

// errNoSubject is told apart, since a sample of NULLs may well leave nothing of a subject.
var errNoSubject = errors.New(`the subject is empty` + "\n    → " + `give it words of its own, or a value for NULL: {{.new.title | default "…"}}`)

// executor is what html/template and text/template have in common.
type executor interface {
	ExecuteTemplate(w io.Writer, name string, data any) error
}

// render renders a mail of data whose times are in the recipient's zone. The data are its own to change.
func (v *variant) render(data map[string]any) (Mail, error) {
	m := Mail{Hash: v.hash}
	if err := v.reason(data); err != nil {
		return Mail{}, err
	}
	subject, err := v.execute(v.plain, blockSubject, data)
	if err != nil {
		return Mail{}, err
	}
	if m.Subject = oneLine(subject); m.Subject == "" {
		return Mail{}, fmt.Errorf("%s: %w", v.file.name, errNoSubject)
	}
	body, err := v.execute(v.html, blockBody, data)
	if err != nil {
		return Mail{}, err
	}
	m.HTML = withFooter(strings.TrimSpace(body), v.footer(blockBody, data))
	if m.Text, err = v.text(m.HTML, data); err != nil {
		return Mail{}, err
	}
	preheader, err := v.execute(v.html, blockPreheader, data)
	if err != nil {
		return Mail{}, err
	}
	m.HTML = withPreheader(m.HTML, oneLine(preheader))
	printed, err := v.execute(v.ics, blockICS, data)
	if err != nil {
		return Mail{}, err
	}
	entry, err := v.renderICS(printed)
	if err != nil {
		return Mail{}, err
	}
	if entry != nil {
		m.ICS, m.Method = entry.text(), entry.method
	}
	return m, nil
}

// execute renders one block; a block that is not there is empty.
func (v *variant) execute(e executor, name string, data map[string]any) (string, error) {
	if !v.has(name) {
		return "", nil
	}
	var out limited
	if err := e.ExecuteTemplate(&out, name, data); errors.Is(err, errTooLong) {
		return "", fmt.Errorf("%s: block %q: %w", v.file.name, name, err)
	} else if err != nil {
		return "", v.execMistake(err)
	}
	return out.text.String(), nil
}

// text is the mail's text part: the block, or else what the HTML says.
func (v *variant) text(page string, data map[string]any) (string, error) {
	if !v.has(blockText) {
		text, err := PlainText(page)
		if err != nil {
			return "", fmt.Errorf("%s: making the text part from the body: %w", v.file.name, err)
		}
		return text, nil
	}
	text, err := v.execute(v.plain, blockText, data)
	return strings.TrimSpace(strings.TrimSpace(text)+"\n\n"+v.footer(blockText, data)) + "\n", err
}

// oneLine makes a line of a text: each run of spaces, line ends and control characters becomes one space. So no value can add a
// header to a mail.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r)
	}), " ")
}

// withPreheader puts the preheader, which is HTML already, where mail programs take their preview from: first in the body, and
// not shown. What follows it keeps the body's own beginning out of the preview.
func withPreheader(page, preheader string) string {
	if preheader == "" {
		return page
	}
	const style = "display:none;max-height:0;max-width:0;overflow:hidden;opacity:0;font-size:1px;line-height:1px;color:transparent;mso-hide:all"
	hidden := `<div style="` + style + `" aria-hidden="true">` + preheader + strings.Repeat("&#847;&zwnj;&nbsp;", 60) + "</div>"
	at := bodyStart(page)
	return page[:at] + hidden + page[at:]
}

// bodyStart is the offset behind <body …>, or 0 where a page has none.
func bodyStart(page string) int {
	z := html.NewTokenizer(strings.NewReader(page))
	at := 0
	for {
		token := z.Next()
		if token == html.ErrorToken {
			return 0
		}
		at += len(z.Raw())
		if name, _ := z.TagName(); token == html.StartTagToken && string(name) == "body" {
			return at
		}
	}
}

// limited is a buffer that takes no more than maxOutput.
type limited struct{ text strings.Builder }

func (l *limited) Write(p []byte) (int, error) {
	if l.text.Len()+len(p) > maxOutput {
		return 0, errTooLong
	}
	return l.text.Write(p)
}
