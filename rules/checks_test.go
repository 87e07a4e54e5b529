package rules

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocsChecks holds that docs/checks.md explains each kind of mistake that the code can report, and no other.
func TestDocsChecks(t *testing.T) {
	t.Parallel()
	var inCode []string
	for _, dir := range []string{".", "../daemon", "../authoring"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !strings.HasSuffix(file, "_test.go") {
				inCode = append(inCode, ids(t, file, `"(PM\d{3})"`)...)
			}
		}
	}
	slices.Sort(inCode)
	inDocs := ids(t, "../docs/checks.md", `(?m)^\| (PM\d{3}) \|`)
	if !slices.IsSorted(inDocs) {
		t.Error("docs/checks.md does not have them in order")
	}
	if diff := cmp.Diff(slices.Compact(inCode), inDocs); diff != "" {
		t.Errorf("the code (-) and docs/checks.md (+):\n%s", diff)
	}
}

// TestEveryCheckIsShown holds that the goldens show each kind of mistake at least once.
func TestEveryCheckIsShown(t *testing.T) {
	t.Parallel()
	shown := []string{
		"PM001", // TestReadNothing: no file, no golden
		"PM224", // TestCheckTellsWhatIsNotPublished: it takes a slot, and a role that may little
	}
	for _, pattern := range []string{"testdata/mistakes/*.golden", "testdata/lints/*.golden", "../daemon/testdata/check/*.txtar"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			shown = append(shown, ids(t, file, `\[(PM\d{3})\]`)...)
		}
	}
	for _, id := range ids(t, "../docs/checks.md", `(?m)^\| (PM\d{3}) \|`) {
		if !slices.Contains(shown, id) {
			t.Errorf("%s is in no golden file", id)
		}
	}
}

func ids(t *testing.T, file, pattern string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
		found = append(found, m[1])
	}
	return found
}
