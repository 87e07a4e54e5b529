package templates

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestAbout holds where a mail tells why it came. The page's frame is left out of what is wanted.
func TestAbout(t *testing.T) {
	t.Parallel()
	const open, shut = `<div style="max-width:600px;margin:0 auto;padding:24px 12px;font-family:sans-serif;font-size:12px;line-height:19px;color:#6f767c">`, "</div>\n"
	const subject = `{{define "subject"}}s{{end}}`
	for name, c := range map[string]struct {
		file, shared, locale string
		about                any
		html, text           string
	}{
		"below a fragment":             {`{{define "body"}}<p>Hi</p>{{end}}`, "", "", "You look after <her>.", `<p>Hi</p>` + open + `Why you received this: You look after &lt;her&gt;.` + shut, "Hi\n\nWhy you received this: You look after <her>.\n"},
		"inside a page":                {`{{define "body"}}<html><body><p>Hi</p></body></html>{{end}}`, "", "", "A.", `<html><body><p>Hi</p>` + open + `Why you received this: A.` + shut + `</body></html>`, "Hi\n\nWhy you received this: A.\n"},
		"a page without </body>":       {`{{define "body"}}<html><p>Hi</p></html>{{end}}`, "", "", "A.", `<html><p>Hi</p>` + open + `Why you received this: A.` + shut + `</html>`, "Hi\n\nWhy you received this: A.\n"},
		"</body> in an attribute":      {`{{define "body"}}<p title="</body>">Hi</p>{{end}}`, "", "", "A.", `<p title="</body>">Hi</p>` + open + `Why you received this: A.` + shut, "Hi\n\nWhy you received this: A.\n"},
		"in Korean":                    {`{{define "body"}}<p>안녕</p>{{end}}`, `{{define "locale"}}ko{{end}}`, "", "담당이시라서.", `<p>안녕</p>` + open + `이 메일을 받으신 이유: 담당이시라서.` + shut, "안녕\n\n이 메일을 받으신 이유: 담당이시라서.\n"},
		"in a language of its own":     {`{{define "locale"}}en{{end}}{{define "body"}}<p>Hi</p>{{end}}`, `{{define "locale"}}ko{{end}}`, "", "A.", `<p>Hi</p>` + open + `Why you received this: A.` + shut, "Hi\n\nWhy you received this: A.\n"},
		"several lines":                {`{{define "body"}}Hi{{end}}`, "", "", "A\r\nb.\n", "Hi" + open + "Why you received this: A b." + shut, "Hi\nWhy you received this: A b.\n"},
		"a block text":                 {`{{define "body"}}Hi{{end}}{{define "text"}}Hello{{end}}`, "", "", "A <b>.", "Hi" + open + "Why you received this: A &lt;b&gt;." + shut, "Hello\n\nWhy you received this: A <b>.\n"},
		"told by the body":             {`{{define "body"}}Hi {{.about}}{{end}}`, "", "", "A.", "Hi A.", "Hi A.\n"},
		"told by the body only":        {`{{define "body"}}Hi {{.about}}{{end}}{{define "text"}}Hello{{end}}`, "", "", "A.", "Hi A.", "Hello\n\nWhy you received this: A.\n"},
		"told by the text only":        {`{{define "body"}}Hi{{end}}{{define "text"}}{{.about}}{{end}}`, "", "", "A.", "Hi" + open + "Why you received this: A." + shut, "A.\n"},
		"told by a shared layout":      {`{{define "body"}}{{template "end" (dict "why" .about)}}{{end}}`, `{{define "end"}}[{{.why}}]{{end}}`, "", "A.", "[A.]", "[A.]\n"},
		"told with the whole passed":   {`{{define "body"}}{{template "end" .}}{{end}}`, `{{define "end"}}[{{.about}}]{{end}}`, "", "A.", "[A.]", "[A.]\n"},
		"told by way of get":           {`{{define "body"}}{{get . "about"}}{{end}}`, "", "", "A.", "A.", "A.\n"},
		"told through $":               {`{{define "body"}}{{range .rows}}{{$.about}}{{end}}{{end}}`, "", "", "A.", "A.", "A.\n"},
		"a column that is named about": {`{{define "body"}}{{with .new}}{{.about}}{{end}}{{.new.about}}{{end}}`, "", "", "A.", "xx" + open + "Why you received this: A." + shut, "xx\nWhy you received this: A.\n"},
		"a rule without about":         {`{{define "body"}}Hi{{end}}`, "", "", "", "Hi", "Hi\n"},
		"about is not among the data":  {`{{define "body"}}Hi{{end}}`, "", "", nil, "Hi", "Hi\n"},
		"the template's own words":     {`{{define "body"}}Hi{{end}}{{define "about"}}you booked <{{.new.about}}>.{{end}}`, "", "", "A.", "Hi" + open + "Why you received this: you booked &lt;x&gt;." + shut, "Hi\nWhy you received this: you booked <x>.\n"},
		"own words in its own place":   {`{{define "body"}}[{{.about}}]{{end}}{{define "about"}}you & {{.about}}{{end}}`, "", "", "A.", "[you &amp; A.]", "[you & A.]\n"},
		"no words at all":              {`{{define "body"}}Hi{{end}}{{define "about"}}{{end}}`, "", "", "A.", "Hi", "Hi\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			files := map[string]string{"m.html": subject + c.file}
			if c.shared != "" {
				files["_layout.html"] = c.shared
			}
			set, err := Load(folderOf(files))
			if err != nil {
				t.Fatal(err)
			}
			data := Data{"new": map[string]any{"about": "x"}, "rows": []map[string]any{{"id": 1}}}
			if c.about != nil {
				data["about"] = c.about
			}
			m, err := set.Render("m", Context{Locale: c.locale}, data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([2]string{c.html, c.text}, [2]string{m.HTML, m.Text}); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if data["about"] != c.about {
				t.Errorf("the caller's data were changed: about is %q", data["about"])
			}
		})
	}
}

// TestAboutStaysText holds that a reason cannot become HTML, whatever it says, and that it is told once.
func TestAboutStaysText(t *testing.T) {
	t.Parallel()
	set, err := Load(folderOf(map[string]string{"m.html": `{{define "subject"}}s{{end}}{{define "body"}}<body>x</body>{{end}}`}))
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		about := rapid.String().Draw(t, "about")
		m, err := set.Render("m", Context{}, Data{"about": about})
		if err != nil {
			t.Fatal(err)
		}
		want := "x\n"
		if line := oneLine(about); line != "" {
			want = "x\n" + english.why + strings.TrimRight(line, " ") + "\n"
		}
		if m.Text != want || strings.Count(m.HTML, "<") > 4 {
			t.Errorf("the text is %q and not %q; the HTML %s", m.Text, want, m.HTML)
		}
	})
}
