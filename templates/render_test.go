package templates

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postman/value"
)

// decimal reads an exact number.
func decimal(t testing.TB, s string) *value.Decimal {
	t.Helper()
	d, err := value.ParseDecimal(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// moment is 15:30 in Seoul on a Wednesday, and still the day before in New York.
var moment = time.Date(2026, time.March, 4, 6, 30, 0, 0, time.UTC)

var seoul = time.FixedZone("KST", 9*60*60)

func TestRenderBody(t *testing.T) {
	t.Parallel()
	data := Data{
		"null": nil, "text": "<b>박서준</b>", "zero": decimal(t, "0.00"), "one": int64(1), "exact": decimal(t, "12345678901234567890.10"),
		"float": 0.1, "yes": true, "no": false, "empty": "",
		"at": moment, "day": value.Date{Time: time.Date(2026, time.March, 4, 0, 0, 0, 0, time.UTC)},
		"wall": value.LocalTime{Time: time.Date(2026, time.March, 4, 0, 30, 0, 0, time.UTC)}, "end": value.Infinity(1),
		"bytes": []byte{0, 255}, "list": []any{"a", nil, decimal(t, "1.50")}, "none": []any{},
		"json": map[string]any{"n": decimal(t, "1.50"), "s": "x<y", "l": []any{nil, true}},
		"rows": []map[string]any{{"id": int64(1), "at": moment}, {"id": int64(2), "at": nil}}, "row": map[string]any{"id": nil},
		"js": "javascript:alert(1)", "url": "https://x.example/?q=한글&a=1",
	}
	for name, c := range map[string]struct{ body, want string }{
		"NULL prints nothing":             {`[{{.null}}]`, `[]`},
		"NULL in a row prints nothing":    {`[{{.row.id}}]`, `[]`},
		"NULL through a pipe":             {`[{{.null | upper | default "-"}}]`, `[-]`},
		"NULL is false":                   {`{{if .null}}yes{{else}}no{{end}}`, `no`},
		"NULL is not true":                {`{{if not .null}}yes{{end}}`, `yes`},
		"an exact zero is false":          {`{{if .zero}}yes{{else}}no{{end}}{{with .zero}}yes{{else}}no{{end}}{{not .zero}}`, `nonotrue`},
		"an exact zero is printed":        {`{{.zero}}`, `0.00`},
		"escaped":                         {`{{.text}}`, `&lt;b&gt;박서준&lt;/b&gt;`},
		"escaped through print":           {`{{print .text "&"}}`, `&lt;b&gt;박서준&lt;/b&gt;&amp;`},
		"numeric is exact":                {`{{.exact}}`, `12345678901234567890.10`},
		"float as Postgres prints it":     {`{{.float}} {{number .float}}`, `0.1 0.1`},
		"an instant in the zone":          {`{{.at}}`, `Wed, March 4, 2026, 3:30 PM`},
		"a list's instants in the zone":   {`{{range .rows}}[{{.at}}]{{end}}`, `[Wed, March 4, 2026, 3:30 PM][]`},
		"a day never moves":               {`{{.day}}`, `March 4, 2026`},
		"a wall clock never moves":        {`{{.wall}}`, `Wed, March 4, 2026, 12:30 AM`},
		"infinity":                        {`{{.end}} {{date .end}}`, `infinity infinity`},
		"bytes":                           {`{{.bytes}}`, `\x00ff`},
		"a list":                          {`{{.list}}`, `a, 1.50`},
		"an empty list":                   {`[{{.none}}{{range .none}}x{{else}}none{{end}}]`, `[none]`},
		"JSON":                            {`{{.json}}`, `{&#34;l&#34;:[null,true],&#34;n&#34;:1.50,&#34;s&#34;:&#34;x&lt;y&#34;}`},
		"a part of JSON":                  {`{{.json.n}}`, `1.50`},
		"range with index":                {`{{range $i, $r := .rows}}{{$i}}:{{$r.id}} {{end}}`, `0:1 1:2`},
		"range over NULL":                 {`{{range .null}}x{{else}}none{{end}}`, `none`},
		"variables and assignment":        {`{{$x := 1}}{{range .rows}}{{$x = .id}}{{end}}{{$x}}`, `2`},
		"break":                           {`{{range .rows}}{{if eq .id 2}}{{break}}{{end}}{{.id}}{{end}}`, `1`},
		"a block with a dict":             {`{{template "fact" (dict "name" "장소" "value" .text)}}`, `장소=&lt;b&gt;박서준&lt;/b&gt;`},
		"a dangerous link":                {`<a href="{{.js}}">x</a>`, `<a href="#ZgotmplZ">x</a>`},
		"a link's address is escaped":     {`<a href="{{.url}}">x</a>`, `<a href="https://x.example/?q=%ed%95%9c%ea%b8%80&amp;a=1">x</a>`},
		"a query's value is escaped":      {`<a href="https://y.example/?u={{.url}}">x</a>`, `<a href="https://y.example/?u=https%3a%2f%2fx.example%2f%3fq%3d%ed%95%9c%ea%b8%80%26a%3d1">x</a>`},
		"booleans":                        {`{{.yes}} {{.no}}`, `true false`},
		"else if":                         {`{{if .no}}a{{else if .yes}}b{{end}}`, `b`},
		"or and and":                      {`{{or .empty .text}} {{and .yes .one}}`, `&lt;b&gt;박서준&lt;/b&gt; 1`},
		"equality of number and numeric":  {`{{eq .zero 0}} {{eq .one 1}} {{ne .exact 1}}`, `true true true`},
		"equality with NULL":              {`{{eq .null .null}} {{eq .one .null}} {{ne .null "x"}}`, `true false true`},
		"equality with one of several":    {`{{eq "b" "a" "b"}}`, `true`},
		"ordering with NULL is false":     {`{{lt .null 1}} {{ge .null 1}} {{gt 1 .null}}`, `false false false`},
		"ordering is exact":               {`{{gt .exact 12345678901234567890.0}} {{lt .float 0.2}} {{le .one 1}} {{ge .one 2}}`, `true true true false`},
		"length in characters":            {`{{len "한글"}} {{len .null}} {{len .rows}} {{len .json}} {{len .list}}`, `2 0 2 3 3`},
		"comments of a template vanish":   {`a{{/* secret */}}b`, `ab`},
		"comments of HTML vanish as well": {`a<!-- secret -->b`, `ab`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := load(t, map[string]string{
				"_facts.html": `{{define "fact"}}{{.name}}={{.value}}{{end}}`,
				"m.html":      whole(c.body),
			})
			m, err := s.Render("m", Context{Locale: "en", Zone: seoul}, data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, m.HTML); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestRenderErrors(t *testing.T) {
	t.Parallel()
	data := Data{"x": "abc", "n": int64(3), "null": nil, "json": map[string]any{"a": nil}, "rows": []map[string]any{{"id": int64(1)}}, "at": moment}
	said := make(map[string]string)
	for name, body := range map[string]string{
		"a name that is not there":     "\n<p>{{.y}}</p>",
		"a part of NULL":               "{{.json.a.b}}",
		"a number in range":            "{{range .n}}x{{end}}",
		"a literal number in range":    "{{range 1000000000000}}{{end}}",
		"rows printed":                 "{{.rows}}",
		"text for money":               `{{money .x "KRW"}}`,
		"no currency":                  `{{money .n "won"}}`,
		"text for a date":              `{{date .x}}`,
		"text equal to a number":       `{{if eq .x 1}}{{end}}`,
		"a time ordered with a number": `{{if lt .at 1}}{{end}}`,
		"too few arguments":            `{{money .n}}`,
	} {
		s := load(t, map[string]string{"m.html": whole(body)})
		m, err := s.Render("m", Context{}, data)
		if err == nil || m != (Mail{}) {
			t.Errorf("%s: rendered %v, %v", name, m, err)
			continue
		}
		said[name] = err.Error()
	}
	golden(t, "render", said)
}

func TestRenderUnknownTemplate(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"schedule_moved.html": whole("b")})
	want := "there is no template schedule_move.html\n    → did you mean schedule_moved?"
	if _, err := s.Render("schedule_move", Context{}, nil); err == nil || err.Error() != want {
		t.Errorf("Render: %v", err)
	}
	if err := s.Check("schedule_move"); err == nil || err.Error() != want {
		t.Errorf("Check: %v", err)
	}
}

func TestRenderTooMuch(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": whole(`{{range .rows}}{{range $.rows}}{{range $.rows}}{{template "x"}}{{end}}{{end}}{{end}}`) + `{{define "x"}}` + strings.Repeat("x", 4096) + `{{end}}`})
	_, err := s.Render("m", Context{}, Data{"rows": make([]map[string]any, 1000)})
	if err == nil || err.Error() != "m.html: block \"body\": it grew over 8388608 bytes\n    → load fewer rows" {
		t.Errorf("error is %v", err)
	}
}

func TestRenderLocales(t *testing.T) {
	t.Parallel()
	const body = `{{locale}} {{day .at}} {{time .at}}`
	s := load(t, map[string]string{
		"_layout.html": `{{define "locale"}} ko-KR {{end}}`,
		"m.html":       whole("default " + body),
		"m.en.html":    whole("en " + body),
		"m.en-GB.html": whole("en-GB " + body),
		"m.ja.html":    whole("ja " + body),
		"one.html":     whole("one " + body),
	})
	for _, c := range []struct{ name, locale, want string }{
		{"m", "", "default ko 3월 4일 (수) 오후 3:30"},
		{"m", "ko", "default ko 3월 4일 (수) 오후 3:30"},
		{"m", "fr", "default ko 3월 4일 (수) 오후 3:30"},
		{"m", "en", "en en Wed, March 4 3:30 PM"},
		{"m", "en-US", "en en Wed, March 4 3:30 PM"},
		{"m", "en_GB", "en-GB en Wed, March 4 3:30 PM"},
		{"m", "EN-gb-oxendict", "en-GB en Wed, March 4 3:30 PM"},
		{"m", "ja-JP", "ja en Wed, March 4 3:30 PM"}, // no table for Japanese
		{"one", "en", "one ko 3월 4일 (수) 오후 3:30"},    // its words are Korean, so are its dates
		{"m", "---", "default ko 3월 4일 (수) 오후 3:30"},
	} {
		m, err := s.Render(c.name, Context{Locale: c.locale, Zone: seoul}, Data{"at": moment})
		if err != nil || m.HTML != c.want {
			t.Errorf("%s in %q is %q, %v; want %q", c.name, c.locale, m.HTML, err, c.want)
		}
	}
}

func TestRenderZones(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": whole(`{{datetime .at}} {{zone .at}}`)})
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	data := Data{"at": moment}
	for zone, want := range map[*time.Location]string{
		nil: "Wed, March 4, 2026, 6:30 AM UTC", seoul: "Wed, March 4, 2026, 3:30 PM KST", newYork: "Wed, March 4, 2026, 1:30 AM EST",
	} {
		if m, err := s.Render("m", Context{Zone: zone}, data); err != nil || m.HTML != want {
			t.Errorf("in %v: %q, %v; want %q", zone, m.HTML, err, want)
		}
	}
	if data["at"] != moment {
		t.Error("rendering changed the data")
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": `{{define "body"}}b{{end}}{{define "subject"}}
	{{.x}} <&>
	{{end}}`})
	for in, want := range map[string]string{
		"a\r\nBcc: b@x": "a Bcc: b@x <&>", "a\u2028b": "a b <&>", "\x00\x7f": "<&>", " 한글  제목\t": "한글 제목 <&>", "<b>": "<b> <&>",
	} {
		if m, err := s.Render("m", Context{}, Data{"x": in}); err != nil || m.Subject != want {
			t.Errorf("%q makes %q, %v; want %q", in, m.Subject, err, want)
		}
	}
}

func TestSubjectIsNotEmpty(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": `{{define "body"}}b{{end}}{{define "subject"}}{{.x}}{{end}}`})
	_, err := s.Render("m", Context{}, Data{"x": nil})
	if err == nil || !strings.HasPrefix(err.Error(), "m.html: the subject is empty\n") {
		t.Errorf("error is %v", err)
	}
	if err := s.Check("m", Data{"x": "x"}, Data{"x": nil}); err != nil {
		t.Errorf("a NULL sample: %v", err)
	}
	if err := s.Check("m", Data{"x": ""}); err == nil {
		t.Error("a filled sample leaves the subject empty, and Check is content")
	}
}

// Whatever a value holds, the subject is one line of text without control characters.
func TestSubjectIsOneLine(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": `{{define "body"}}b{{end}}{{define "subject"}}s{{.x}}{{end}}`})
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\r\n\t a\x00\x1b\x85]*`)).Draw(t, "x")
		m, err := s.Render("m", Context{}, Data{"x": x})
		if err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(m.Subject, "\r\n\x00\x1b\u0085\u2028\u2029") || m.Subject == "" {
			t.Fatalf("subject %q", m.Subject)
		}
	})
}

func TestPreheader(t *testing.T) {
	t.Parallel()
	const preheader = `{{define "preheader"}} {{.x}}
	! {{end}}`
	for name, c := range map[string]struct{ body, before, after string }{
		"in the body":   {`<html><body class="a>b" id=x><p>text</p></body></html>`, `<html><body class="a>b" id=x><div style="`, `</div><p>text</p></body></html>`},
		"in upper case": {`<BODY><p>text</p></BODY>`, `<BODY><div style="`, `</div><p>text</p></BODY>`},
		"without one":   {`<p>text</p>`, `<div style="`, `</div><p>text</p>`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := load(t, map[string]string{"m.html": whole(c.body) + preheader})
			m, err := s.Render("m", Context{}, Data{"x": "<b>"})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(m.HTML, c.before) || !strings.HasSuffix(m.HTML, c.after) || !strings.Contains(m.HTML, ">&lt;b&gt; !&#847;") {
				t.Errorf("HTML is %s", m.HTML)
			}
			if m.Text != "text\n" {
				t.Errorf("the text part is %q", m.Text)
			}
		})
	}
}

func TestTextBlock(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": whole("<p>from the body</p>") + "{{define \"text\"}}\n\n{{.x}} & 안녕\n\n{{end}}", "n.html": whole("<p>{{.x}}</p>")})
	for name, want := range map[string]string{"m": "<b> & 안녕\n", "n": "<b>\n"} {
		if m, err := s.Render(name, Context{}, Data{"x": "<b>"}); err != nil || m.Text != want {
			t.Errorf("%s: text is %q, %v; want %q", name, m.Text, err, want)
		}
	}
}

// A set is for many goroutines, from its first mail on.
func TestRenderConcurrently(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{"m.html": whole(`<a href="{{.x}}">{{.x}}</a>`) + `{{define "preheader"}}{{.x}}{{end}}`})
	want, err := load(t, map[string]string{"m.html": whole(`<a href="{{.x}}">{{.x}}</a>`) + `{{define "preheader"}}{{.x}}{{end}}`}).Render("m", Context{}, Data{"x": "y"})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				if m, err := s.Render("m", Context{}, Data{"x": "y"}); err != nil || m != want {
					t.Errorf("rendered %v, %v", m, err)
				}
			}
		})
	}
	wg.Wait()
}
