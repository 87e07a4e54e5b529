package templates

import (
	"maps"
	"slices"
	"testing"
)

// TestHashes holds what a mail's hash hangs on: its own file and the shared ones, and nothing else.
func TestHashes(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"m.html": `{{define "subject"}}s{{end}}{{define "body"}}{{template "x"}}{{end}}`, "m.ko.html": `{{define "subject"}}s{{end}}{{define "body"}}ko{{end}}`,
		"other.html": `{{define "subject"}}s{{end}}{{define "body"}}b{{end}}`, "_shared.html": `{{define "x"}}x{{end}}`,
	}
	hashes := func(files map[string]string) map[string]Hash {
		set, err := Load(folderOf(files))
		if err != nil {
			t.Fatal(err)
		}
		return set.Hashes("m")
	}
	before := hashes(files)
	if names := slices.Sorted(maps.Keys(before)); !slices.Equal(names, []string{"m.html", "m.ko.html"}) || before["m.html"] == before["m.ko.html"] {
		t.Errorf("the hashes are %x", before)
	}
	for name, c := range map[string]struct {
		file      string
		main, own bool // whether the hashes of m.html and m.ko.html change
	}{"its file": {"m.html", true, false}, "another language's": {"m.ko.html", false, true}, "a shared file": {"_shared.html", true, true}, "another mail": {"other.html", false, false}} {
		changed := maps.Clone(files)
		changed[c.file] += "{{/* changed */}}"
		after := hashes(changed)
		if got := after["m.html"] != before["m.html"]; got != c.main {
			t.Errorf("%s: the hash of m.html changed: %v", name, got)
		}
		if got := after["m.ko.html"] != before["m.ko.html"]; got != c.own {
			t.Errorf("%s: the hash of m.ko.html changed: %v", name, got)
		}
	}
	set, err := Load(folderOf(files))
	if err != nil {
		t.Fatal(err)
	}
	for locale, file := range map[string]string{"": "m.html", "ko-KR": "m.ko.html", "fr": "m.html"} {
		if m, err := set.Render("m", Context{Locale: locale}, Data{}); err != nil || m.Hash != before[file] {
			t.Errorf("%q: a mail of %x, %v", locale, m.Hash, err)
		}
	}
	if set.Hashes("nothing") != nil {
		t.Error("a template that is not there has hashes")
	}
}
