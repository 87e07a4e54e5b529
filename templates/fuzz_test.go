package templates

import (
	"io/fs"
	"os"
	"strings"
	"testing"
)

// FuzzLoad: whatever is in the folder, Load ends with a set or an error, and what it took, Check and Render end with as well.
func FuzzLoad(f *testing.F) {
	folder := os.DirFS(".")
	examples, err := fs.Glob(folder, "*.html")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range examples {
		text, err := fs.ReadFile(folder, name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text), `{{define "x"}}{{.y}}{{end}}`)
	}
	for _, body := range []string{
		"{{range 9999999999}}{{end}}", "{{range $i, $e := .rows}}{{break}}{{end}}", `{{template "x" (dict "y" 1)}}`, "{{with $x := .a}}{{$x.b.c}}{{end}}",
		`<a href="{{.u}}" onclick="f({{.x}})" style="color:{{.c}}">`, "<script>var x = {{.x}};`${ {{.y}} }`</script>", "{{- /* c */ -}}", "{{block \"z\" .}}{{end}}",
		strings.Repeat("(", 50), "{{(((.a).b).c).d}}", "{{nil}}", "{{.a | printf}}", "{{1e100000}}{{0x_1}}{{'a'}}{{1i}}", "{{and}}{{or 1}}{{not}}", "{{else}}",
	} {
		f.Add(whole(body), `{{define "x"}}{{template "subject" .}}{{end}}`)
	}
	f.Fuzz(func(t *testing.T, mail, shared string) {
		s, err := Load(folderOf(map[string]string{"m.html": mail, "m.ko.html": mail, "_s.html": shared}))
		if err != nil {
			return
		}
		sample := Data{"message": Unknown{}, "new": Sample(columns, false), "rows": []map[string]any{Sample(columns, true)}, "a": nil, "y": "<b>"}
		_ = s.Check("m", sample)
		m, err := s.Render("m", Context{Locale: "ko"}, sample)
		if err == nil && (m.Subject == "" || strings.ContainsAny(m.Subject, "\r\n")) {
			t.Errorf("subject %q", m.Subject)
		}
	})
}

// FuzzPlainText: no page hangs or crashes the making of its text.
func FuzzPlainText(f *testing.F) {
	f.Add(`<table><tr><th>a<td>b</table><p><a href="x">y</a><ul><li>z`)
	f.Fuzz(func(_ *testing.T, page string) {
		if text, err := PlainText(page); err == nil {
			_ = withPreheader(page, text)
		}
	})
}
