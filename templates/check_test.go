package templates

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/value"
)

var columns = []value.Column{
	{Name: "id", Type: value.Type{Base: pgtype.Int8OID}},
	{Name: "price", Type: value.Type{Base: pgtype.NumericOID}},
	{Name: "starts_at", Type: value.Type{Base: pgtype.TimestamptzOID}},
	{Name: "title", Type: value.Type{Base: pgtype.TextOID}},
	{Name: "details", Type: value.Type{Base: pgtype.JSONBOID}},
	{Name: "tags", Type: value.Type{Base: pgtype.TextArrayOID}},
	{Name: "Buyer Id", Type: value.Type{Base: pgtype.Int4OID}},
	{Name: "title", Type: value.Type{Base: pgtype.Int8OID}}, // a query may name two columns alike
}

// samples are what a checker of rules passes: one of values, one of NULLs.
func samples() []Data {
	var all []Data
	for _, null := range []bool{false, true} {
		all = append(all, Data{
			"about": "why", "new": Sample(columns, null), "message": Unknown{}, "listings": []map[string]any{Sample(columns, null)},
		})
	}
	return all
}

func TestCheck(t *testing.T) {
	t.Parallel()
	said := make(map[string]string)
	for name, body := range map[string]string{
		"all is well":                           `{{.about}}{{money .new.price "KRW"}}{{datetime .new.starts_at}}{{range .listings}}{{.title}}{{$.new.id}}{{end}}{{join ", " .new.tags}}`,
		"a part of JSON in with":                `{{with .new.details}}{{.color}}{{range .sizes}}{{.width}}{{end}}{{.color}}{{end}}`,
		"any part of a message":                 `{{.message.a.b}}{{range .message.list}}{{.x.y}}{{range .z}}{{.}}{{end}}{{end}}{{money .message.n "KRW"}}{{if gt .message.n 3}}{{date .message.d}}{{end}}`,
		"get of a message":                      `{{get .message "name" | upper}}{{range get .message "items"}}{{.}}{{end}}`,
		"a variable of a branch not taken":      `{{if not .about}}{{.new.titel}}{{end}}`,
		"in the branches for nothing":           `{{if .about}}{{else}}{{.a}}{{end}}{{with .about}}{{else}}{{.b}}{{end}}{{range .listings}}{{else}}{{.c}}{{end}}`,
		"an unknown name of the data":           `{{.nwe.title}}`,
		"a column without its row":              `{{.title}}{{.new.id.title}}`,
		"through a variable":                    `{{$r := .new}}{{$r.titel}}`,
		"through with and $":                    `{{with .new}}{{.titel}}{{$.abuot}}{{end}}`,
		"the whole inside of range":             `{{range .listings}}{{.new.id}}{{.titel}}{{end}}{{with .new.title}}{{.about}}{{.new.title}}{{end}}`,
		"through range":                         `{{range $i, $l := .listings}}{{.titel}}{{$l.idd}}{{end}}`,
		"through a block and a dict":            `{{template "fact" (dict "nam" .new.title)}}`,
		"a block without its value":             `{{template "fact" .}}`,
		"a part of a text":                      `{{.new.title.first}}`,
		"a method of a time":                    `{{.new.starts_at.Year}}`,
		"a part of a list":                      `{{.listings.title}}`,
		"a part of JSON that may be NULL":       `{{.new.details.color}}`,
		"a function that cannot take its value": `{{if .new.id}}{{money .new.title "KRW"}}{{end}}`,
		"a function of the branch for NULL":     `{{if .new.id}}{{else}}{{date .about}}{{end}}`,
		"deeper in a parenthesis":               `{{(get .new "details").x | len}}{{print (.new).titel}}`,
		"a column that needs quotes":            `{{.new.buyer_id}}{{.new.Buyer}}`,
		"functions without all their values":    `{{money .new.price}}{{plural .new.id "a"}}{{.new.id | number 2 | money}}{{money "KRW" .new.price}}{{number .new.price "2"}}{{.new.title or "x"}}`,
		"several that only rendering tells": `{{range .new.title}}{{.}}{{end}}{{if date .new.id}}{{won .new.title}}{{end}}{{with date .new.id}}{{end}}` +
			`{{template "fact" (dict "name" (won .new.title))}}{{date .new.price}}`,
	} {
		s := load(t, map[string]string{
			"_facts.html": `{{define "fact"}}{{.name}}{{end}}`,
			"m.html":      whole(body),
		})
		said[name] = "all is well"
		if err := s.Check("m", samples()...); err != nil {
			said[name] = err.Error()
		}
	}
	golden(t, "check", said)
}

func TestCheckAllBlocksAndLocales(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{
		"m.html":    `{{define "subject"}}{{.a}}{{end}}{{define "body"}}{{.b}}{{end}}{{define "text"}}{{.c}}{{end}}{{define "preheader"}}{{.d}}{{end}}{{define "ics"}}{{.e}}{{end}}`,
		"m.ko.html": whole("{{.f}}"),
		"n.html":    whole("{{.not_checked}}"),
	})
	err := s.Check("m", Data{"z": 1})
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if !strings.Contains(err.Error(), "there is no ."+name+"\n") {
			t.Errorf(".%s is not missed in:\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), "not_checked") {
		t.Error("another template was checked")
	}
}

// Blocks that call others twice, level by level, would be walked for longer than anybody waits.
func TestCheckEnds(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 60 {
		fmt.Fprintf(&b, `{{define "x%d"}}{{template "x%d"}}{{template "x%d"}}{{end}}`, i, i+1, i+1)
	}
	s := load(t, map[string]string{"m.html": whole(`{{template "x0"}}`) + b.String() + `{{define "x60"}}{{end}}`})
	if err := s.Check("m", Data{}); err == nil || !strings.HasPrefix(err.Error(), "m.html: the template is too large") {
		t.Errorf("error is %v", err)
	}
}

func TestSample(t *testing.T) {
	t.Parallel()
	got := Sample(columns, false)
	want := map[string]any{
		"id": int64(3), "price": decimal(t, "1234500.00"), "starts_at": sampleTime, "title": "title", "details": Unknown{}, "tags": []any{"tags"}, "Buyer Id": int64(3),
	}
	same := cmp.Comparer(func(a, b *value.Decimal) bool { return a.String() == b.String() })
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Error(diff)
	}
	for name, v := range Sample(columns, true) {
		if _, there := want[name]; !there || v != nil {
			t.Errorf("%s is %v", name, v)
		}
	}
}

// TestUses holds which names a template is known to read, by whatever way.
func TestUses(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{
		"_facts.html": `{{define "fact"}}{{.value}}{{.row.title}}{{end}}`,
		"x.html": `{{define "subject"}}{{.new.title}}{{if .about}}{{else}}{{get .message "token"}}{{end}}{{end}}` +
			`{{define "body"}}{{with .new}}{{.id}}{{$.message.name}}{{end}}{{range $i, $l := .listings}}{{$l.price}}{{end}}` +
			`{{template "fact" (dict "value" .new.starts_at "row" .old)}}{{end}}`,
		"x.ko.html": `{{define "subject"}}s{{end}}{{define "body"}}{{len .spare}}{{end}}{{define "preheader"}}{{$n := .new}}{{$n.price}}{{end}}`,
	})
	d := samples()[0]
	d["old"], d["spare"], d["other"] = Sample(columns, false), []map[string]any{Sample(columns, false)}, Sample(columns, false)
	var got []string
	for u := range s.Uses("x", d) {
		got = append(got, u.Block+" "+u.Of+"."+u.Name)
	}
	slices.Sort(got)
	want := []string{
		"body .listings", "body .message", "body .new", "body .old", "body .spare", "body listings.price", "body message.name", "body new.id",
		"body new.starts_at", "body old.title", "preheader .new", "preheader new.price",
		"subject .about", "subject .message", "subject .new", "subject message.token", "subject new.title",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(s.Uses("none", d)) != 0 {
		t.Error("a template that is not there reads something")
	}
}

func TestReads(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{
		"none.html":    whole("{{.new.about}}{{get .new \"rule\"}}"),
		"one.html":     whole("{{if .new}}{{else}}{{.about}}{{end}}"),
		"root.html":    whole("{{with .new}}{{$.rule}}{{end}}"),
		"handed.html":  whole("{{template \"part\" (dict \"all\" .)}}"),
		"_part.html":   "{{define \"part\"}}{{$x := .all}}{{$x.about}}{{end}}",
		"get.html":     whole("{{get . \"rule\"}}"),
		"any.html":     whole("{{get . .new.title}}"),
		"else.html":    whole(""),
		"else.ko.html": whole("{{.rule}}"),
	})
	for name, want := range map[string]bool{
		"none": false, "one": true, "root": true, "handed": true, "get": true, "any": true, "else": true, "missing": false,
	} {
		if got := s.Reads(name, "rule", "about"); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMistakesApart(t *testing.T) {
	t.Parallel()
	_, err := Load(folderOf(map[string]string{
		"a.html": "{{define \"subject\"}}s{{end}}\n가{{define \"body\"}}{{nope .x}}{{end}}", "b.ko.html": whole(""), "nö.html": "",
	}))
	got := Mistakes(err)
	want := []Mistake{
		{File: "a.html", Line: 2, Column: 1, Message: "this stands outside of a block and would never be sent", Hint: `put it between {{define "body"}} and {{end}}`, Source: `가{{define "body"}}{{nope .x}}{{end}}`},
		{File: "a.html", Line: 2, Column: 21, Message: "there is no function nope", Hint: "docs/templates.md lists the functions", Source: `가{{define "body"}}{{nope .x}}{{end}}`},
		{File: "nö.html", Message: "this is no name of a template", Hint: "call it name.html or, for a language, name.ko.html, with the letters a-z, digits, _ and -"},
		{File: "b.html", Message: "the file is missing: it is what recipients get for whose language there is none", Hint: "rename b.ko.html, or copy it"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
