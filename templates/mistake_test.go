package templates

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/ anew")

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

// golden compares what was said in each case with testdata/, where it reads as people will see it.
func golden(t *testing.T, name string, said map[string]string) {
	t.Helper()
	var b strings.Builder
	for _, c := range slices.Sorted(maps.Keys(said)) {
		fmt.Fprintf(&b, "--- %s\n%s\n\n", c, said[c])
	}
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("errors (-want +got), go test -update writes them anew:\n%s", diff)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	said := make(map[string]string)
	for name, files := range map[string]map[string]string{
		"unknown functions, all at once":          {"m.html": whole("\n<p>가격: {{mony .x}}</p>\n\t{{.x | uppper}}\n")},
		"a function that would print <nil>":       {"m.html": whole(`{{printf "%d" .x}}`)},
		"our own functions are not for templates": {"m.html": whole(`{{_print .x}}`)},
		"syntax":                       {"m.html": whole("\n{{if .x}}\n")},
		"no subject, but a likely one": {"m.html": "{{define \"subjet\"}}s{{end}}\n{{define \"body\"}}b{{end}}"},
		"text outside of a block":      {"m.html": "{{/* fine */}}\n\n  안녕하세요\n" + whole("b")},
		"an action outside of a block": {"m.html": whole("b") + "\n{{if .x}}{{end}}"},
		"an unknown block": {
			"_layout.html": `{{define "button"}}b{{end}}`,
			"m.html":       whole(`{{template "buton" .}}`),
		},
		"a mistake in a shared file is told once": {
			"_layout.html": `{{define "top"}}{{mony 1}}{{end}}`,
			"a.html":       whole(`{{template "top"}}`),
			"b.html":       whole(`{{template "top"}}`),
		},
		"two shared blocks of one name":           {"_a.html": `{{define "x"}}1{{end}}`, "_b.html": `{{define "x"}}2{{end}}`},
		"a block that calls itself":               {"m.html": whole(`{{template "a" .}}`) + `{{define "a"}}{{template "b" .}}{{end}}{{define "b"}}{{template "a" .}}{{end}}`},
		"the body calls itself":                   {"m.html": whole(`{{template "body" .}}`)},
		"a place that cannot be escaped":          {"m.html": whole("\n<a href=\"{{if .x}}\">{{end}}x</a>")},
		"an attribute that never ends":            {"m.html": whole(`<a href="{{.x}}`)},
		"only a variant":                          {"m.ko.html": whole("b")},
		"a name that is no name":                  {"예약.html": whole("b")},
		"a shared file of a language":             {"_layout.ko.html": ""},
		"not UTF-8":                               {"m.html": "{{define \"subject\"}}\n한글 \xc7\xd1{{end}}"},
		"the folder's language is an expression":  {"_layout.html": `{{define "locale"}}{{.x}}{{end}}`},
		"a value without its dot":                 {"m.html": whole(`{{new.id}} {{ to.name }}`)},
		"the signs of another language":           {"m.html": whole("\n{% if x %}a{% endif %}")},
		"an action that is not closed, and a tag": {"m.html": whole("\n<p>{{.new.note</p>")},
		"a loop of another language":              {"m.html": whole("\n{{for l in listings}}\n{{.title}}{{end}}")},
		"another loop of another language":        {"m.html": whole("\n{{foreach .listings}}{{.title}}{{end}}")},
		"comparing in the middle":                 {"m.html": whole("\n" + `{{if .x == "a"}}b{{end}}`)},
		"comparing sizes in the middle":           {"m.html": whole("\n{{if .x > 3}}b{{end}}")},
		"joining in the middle":                   {"m.html": whole("\n{{if .x && .y}}b{{end}}")},
		"computing":                               {"m.html": whole("\n{{.x * 3}}")},
		"taking away":                             {"m.html": whole("\n가 {{.x - .y}}")},
		"a share":                                 {"m.html": whole("\n{{.x}} % of {{.y%}}")},
		"a name in quotes":                        {"m.html": whole("\n{{.new.\"Buyer Mail\"}}")},
		"a name in brackets":                      {"m.html": whole("\n{{.new[\"Buyer Mail\"]}}")},
		"a name of two words":                     {"m.html": whole("\n{{.new.Buyer Mail}}")},
		"a part without its dot":                  {"m.html": whole("\n{{customer.name}}")},
		"a variable that is none":                 {"m.html": whole("\n{{$new.x}}")},
		"a value for NULL as elsewhere":           {"m.html": whole("\n{{.x ?? 1}}")},
		"one end too many":                        {"m.html": whole("\n{{end}}") + "{{end}}"},
		"one brace":                               {"m.html": whole("\n{{.x}")},
		"a query's name":                          {"m.html": whole("\n{{@new.x}}")},
		"single quotes":                           {"m.html": whole("\n{{.x | default 'none'}}")},
		"ranges in ranges":                        {"m.html": whole(strings.Repeat("{{range .x}}", 7) + strings.Repeat("{{end}}", 7))},
	} {
		s, err := Load(folderOf(files))
		if err == nil {
			t.Errorf("%s: loaded %v", name, s.Names())
			continue
		}
		said[name] = err.Error()
	}
	golden(t, "mistakes", said)
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
