package postman_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDependenciesHaveReasons compares docs/dependencies.md with the modules that the module's files import.
func TestDependenciesHaveReasons(t *testing.T) {
	t.Parallel()
	var required []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v`).FindAllStringSubmatch(read(t, "go.mod"), -1) {
		required = append(required, m[1])
	}
	var imported []string
	for _, text := range files(t, ".go") {
		for _, m := range regexp.MustCompile(`(?m)^(?:import |\t)(?:[\w.]+ )?"([^"/]+\.[^"/]+/[^"]+)"$`).FindAllStringSubmatch(text, -1) {
			i := slices.IndexFunc(required, func(module string) bool { return within(m[1], module) })
			if i >= 0 {
				imported = append(imported, required[i])
			}
		}
	}
	slices.Sort(imported)
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(read(t, "docs/dependencies.md"), -1) {
		documented = append(documented, m[1])
	}
	slices.Sort(documented)
	if diff := cmp.Diff(documented, slices.Compact(imported)); diff != "" {
		t.Errorf("docs/dependencies.md (-) and the imports (+) differ:\n%s", diff)
	}
}

// TestDocsNameRealTests looks for the tests that the pages name.
func TestDocsNameRealTests(t *testing.T) {
	t.Parallel()
	declared := map[string]bool{}
	for _, text := range files(t, "_test.go") {
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`).FindAllStringSubmatch(text, -1) {
			declared[m[1]] = true
		}
	}
	for page, text := range files(t, ".md") {
		for _, m := range regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w+`).FindAllString(text, -1) {
			if !declared[m] {
				t.Errorf("%s names %s, and there is no such test", page, m)
			}
		}
	}
}

// TestDocsLinksResolve follows the links between the pages and to files of the repository.
func TestDocsLinksResolve(t *testing.T) {
	t.Parallel()
	for page, text := range files(t, ".md") {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)`).FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// files reads the module's files with the given ending, by path; bench is a module of its own.
func files(t *testing.T, ending string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		hidden := strings.HasPrefix(d.Name(), ".") && path != "."
		switch {
		case d.IsDir() && (hidden || path == "bench"):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(path, ending):
			texts[path] = read(t, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(texts) == 0 {
		t.Fatalf("no file ends in %s", ending)
	}
	return texts
}
