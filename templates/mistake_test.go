package templates

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// folderOf is a folder of the named files.
func folderOf(files map[string]string) fstest.MapFS {
	dir := make(fstest.MapFS, len(files))
	for name, text := range files {
		dir[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return dir
}

// load fails the test where a folder does not load.
func load(t *testing.T, files map[string]string) *Set {
	t.Helper()
	s, err := Load(folderOf(files))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// whole is a mail of which only the body matters.
func whole(body string) string {
	return `{{define "subject"}}s{{end}}{{define "body"}}` + body + `{{end}}`
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"unknown functions, all at once": {
			map[string]string{"m.html": whole("\n<p>가격: {{mony .x}}</p>\n\t{{.x | uppper}}\n")},
			`m.html:2:10: there is no function mony; did you mean "money"?
  2 | <p>가격: {{mony .x}}</p>
    |            ^
m.html:3:9: there is no function uppper; did you mean "upper"?
  3 | {{.x | uppper}}
    |        ^`,
		},
		"a function that would print <nil>": {
			map[string]string{"m.html": whole(`{{printf "%d" .x}}`)},
			`m.html:1:48: function printf is not for templates: write the text around the value, or use number, money, date or print
  1 | {{define "subject"}}s{{end}}{{define "body"}}{{printf "%d" .x}}{{end}}
    |                                                ^`,
		},
		"our own functions are not for templates": {
			map[string]string{"m.html": whole(`{{_print .x}}`)},
			`m.html:1:48: there is no function _print; did you mean "print"?
  1 | {{define "subject"}}s{{end}}{{define "body"}}{{_print .x}}{{end}}
    |                                                ^`,
		},
		"syntax": {
			map[string]string{"m.html": whole("\n{{if .x}}\n")},
			`m.html:3: unexpected EOF
  3 | {{end}}`,
		},
		"no subject, but a likely one": {
			map[string]string{"m.html": "{{define \"subjet\"}}s{{end}}\n{{define \"body\"}}b{{end}}"},
			`m.html: block "subject" is missing: add {{define "subject"}}…{{end}} (is that what {{define "subjet"}} was to be?)
m.html:1:20: block "subjet" is never used: postman takes subject, body, text, preheader, ics, and what they call; did you mean "subject"?
  1 | {{define "subjet"}}s{{end}}
    |                    ^`,
		},
		"text outside of a block": {
			map[string]string{"m.html": "{{/* fine */}}\n\n  안녕하세요\n" + whole("b")},
			`m.html:3:3: this stands outside of a block and would never be sent: put it between {{define "body"}} and {{end}}
  3 | 안녕하세요
    | ^`,
		},
		"an action outside of a block": {
			map[string]string{"m.html": whole("b") + "\n{{if .x}}{{end}}"},
			`m.html:2:6: this stands outside of a block and would never run: put it between {{define "body"}} and {{end}}
  2 | {{if .x}}{{end}}
    |      ^`,
		},
		"an unknown block": {
			map[string]string{
				"_layout.html": `{{define "button"}}b{{end}}`,
				"m.html":       whole(`{{template "buton" .}}`),
			},
			`m.html:1:57: there is no block "buton"; did you mean button?
  1 | {{define "subject"}}s{{end}}{{define "body"}}{{template "buton" .}}{{end}}
    |                                                         ^`,
		},
		"a mistake in a shared file is told once": {
			map[string]string{
				"_layout.html": `{{define "top"}}{{mony 1}}{{end}}`,
				"a.html":       whole(`{{template "top"}}`),
				"b.html":       whole(`{{template "top"}}`),
			},
			`_layout.html:1:19: there is no function mony; did you mean "money"?
  1 | {{define "top"}}{{mony 1}}{{end}}
    |                   ^`,
		},
		"two shared blocks of one name": {
			map[string]string{"_a.html": `{{define "x"}}1{{end}}`, "_b.html": `{{define "x"}}2{{end}}`},
			`_b.html:1:15: block "x" is defined in _a.html too: rename one of them
  1 | {{define "x"}}2{{end}}
    |               ^`,
		},
		"a block that calls itself": {
			map[string]string{"m.html": whole(`{{template "a" .}}`) + `{{define "a"}}{{template "b" .}}{{end}}{{define "b"}}{{template "a" .}}{{end}}`},
			`m.html:1:135: block "a" calls itself (body → a → b → a): it would never end; use {{range}} for lists
  1 | {{define "subject"}}s{{end}}{{define "body"}}{{template "a" .}}{{end}}{{define "a"}}{{template "b" .}}{{end}}{{define "b"}}{{template "a" .}}{{end}}
    |                                                                                                                                       ^`,
		},
		"the body calls itself": {
			map[string]string{"m.html": whole(`{{template "body" .}}`)},
			`m.html:1:57: block "body" calls itself (body → body): it would never end; use {{range}} for lists
  1 | {{define "subject"}}s{{end}}{{define "body"}}{{template "body" .}}{{end}}
    |                                                         ^`,
		},
		"a place that cannot be escaped": {
			map[string]string{"m.html": whole("\n<a href=\"{{if .x}}\">{{end}}x</a>")},
			`m.html:2:15: the branches end in different places of the HTML: each has to close the tags' brackets and quotes that it opens
  2 | <a href="{{if .x}}">{{end}}x</a>{{end}}
    |               ^`,
		},
		"an attribute that never ends": {
			map[string]string{"m.html": whole(`<a href="{{.x}}`)},
			`m.html: block "body": it ends in the middle of a tag, a quoted attribute or a script: close the bracket or quote`,
		},
		"only a variant": {
			map[string]string{"m.ko.html": whole("b")},
			`m.html is missing: it is what recipients get for whose language there is no file; rename m.ko.html or copy it`,
		},
		"a name that is no name": {
			map[string]string{"예약.html": whole("b")},
			`예약.html is not the name of a template: name.html or, for a language, name.ko.html, of the letters a-z, digits, _ and -`,
		},
		"a shared file of a language": {
			map[string]string{"_layout.ko.html": ""},
			`_layout.ko.html: a shared file serves all languages; let it ask {{if eq locale "ko"}}`,
		},
		"not UTF-8": {
			map[string]string{"m.html": "{{define \"subject\"}}\n한글 \xc7\xd1{{end}}"},
			"m.html:2:4: the file is not UTF-8: save it as UTF-8\n  2 | 한글 \xc7\xd1{{end}}\n    |      ^",
		},
		"the folder's language is an expression": {
			map[string]string{"_layout.html": `{{define "locale"}}{{.x}}{{end}}`},
			`_layout.html:1:20: block "locale" names the language of the files whose names tell none, as in {{define "locale"}}ko{{end}}
  1 | {{define "locale"}}{{.x}}{{end}}
    |                    ^`,
		},
		"ranges in ranges": {
			map[string]string{"m.html": whole(strings.Repeat("{{range .x}}", 7) + strings.Repeat("{{end}}", 7))},
			`m.html:1:126: this is nested too deep: at most 6 ranges, and 100 blocks of control in all
  1 | {{define "subject"}}s{{end}}{{define "body"}}{{range .x}}{{range .x}}{{range .x}}{{range .x}}{{range .x}}{{range .x}}{{range .x}}{{end}}{{end}}{{end}}{{end}}{{e…
    |                                                                                                                              ^`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := Load(folderOf(c.files))
			if err == nil {
				t.Fatalf("loaded %v", s.Names())
			}
			if diff := cmp.Diff(c.want, err.Error()); diff != "" {
				t.Errorf("error (-want +got):\n%s", diff)
			}
		})
	}
}

func TestLoadReadsOnlyTemplates(t *testing.T) {
	t.Parallel()
	s := load(t, map[string]string{
		"b.html": whole("b"), "a.html": whole("a"), "a.en.html": whole("a"), "_layout.html": `{{define "top"}}{{end}}`,
		".a.html.swp": "{{", ".hidden.html": "{{", "api.go": "{{", "README": "{{", "sub/c.html": "{{",
	})
	if diff := cmp.Diff([]string{"a", "b"}, s.Names()); diff != "" {
		t.Error(diff)
	}
	if !s.Has("a") || s.Has("_layout") || s.Has("c") || s.Has("") {
		t.Error("Has tells otherwise than Names")
	}
}

func TestLoadMissingFolder(t *testing.T) {
	t.Parallel()
	if _, err := Load(os.DirFS(filepath.Join(t.TempDir(), "none"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}

// An os.Root's FS refuses links out of the folder, and follows those within it, as Kubernetes makes them.
func TestLoadLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(dir, "mails"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "secret"), []byte(whole("secret")), 0o600))
	must(os.Mkdir(filepath.Join(dir, "mails", "..data"), 0o700))
	must(os.WriteFile(filepath.Join(dir, "mails", "..data", "in.html"), []byte(whole("in")), 0o600))
	must(os.Symlink("..data/in.html", filepath.Join(dir, "mails", "in.html")))
	root, err := os.OpenRoot(filepath.Join(dir, "mails"))
	must(err)
	defer root.Close()

	s, err := Load(root.FS())
	must(err)
	if m, err := s.Render("in", Context{}, Data{}); err != nil || m.HTML != "in" {
		t.Errorf("rendered %q, %v", m.HTML, err)
	}

	must(os.Symlink("../secret", filepath.Join(dir, "mails", "out.html")))
	if _, err := Load(root.FS()); err == nil || !strings.Contains(err.Error(), "out.html") {
		t.Errorf("a link out of the folder: %v", err)
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	known := []string{"customer", "commit_time", "cut"}
	for name, want := range map[string]string{"custmer": "customer", "Customer": "customer", "cust": "cut", "listing": "", "x": ""} {
		if got, _ := nearest(name, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
}
