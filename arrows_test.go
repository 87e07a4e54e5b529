// Package postman_test keeps true what the documentation says of the whole module: which package may know which,
// where the libraries live, and that the pages name things that exist.
package postman_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// arrows are the imports that are allowed between postman's rooms, a room being the first element of a package's path;
// docs/architecture.md draws them. Packages of one room may import each other, and every room position and value.
var arrows = map[string][]string{
	"position":  {},
	"value":     {},
	"templates": {},
	"cdc":       {},
	"outbox":    {},
	"bounce":    {},
	"maildns":   {},
	"rules":     {"cdc"},
	"dispatch":  {"bounce", "outbox", "rules", "templates"},
	"daemon":    {"bounce", "cdc", "dispatch", "maildns", "outbox", "rules", "templates"},
	"authoring": {"cdc", "daemon", "dispatch", "outbox", "rules", "templates"},
	"cmd":       {"authoring", "bounce", "daemon", "internal", "the example"},
	// The demo, test clusters, test servers: they may need anything, and only cmd may need them.
	"internal":    {"cdc", "daemon", "dispatch", "examples", "outbox", "rules", "templates"},
	"examples":    {},
	"the example": {}, // the root: rules.yaml and the mails, embedded
}

// homes are the libraries that one room alone may import: rules knows no SMTP, dispatch no WAL, and a library can be
// replaced without a search.
var homes = map[string]string{
	"github.com/alecthomas/kong":     "cmd",
	"github.com/expr-lang/expr":      "rules",
	"github.com/fsnotify/fsnotify":   "daemon",
	"github.com/getsentry/sentry-go": "daemon",
	"github.com/jackc/pglogrepl":     "cdc",
	"github.com/wneessen/go-mail":    "dispatch",
	"modernc.org/sqlite":             "outbox",
}

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath, Dir, Name, Doc string
	GoFiles, Imports, Deps     []string
}

func TestArrows(t *testing.T) {
	t.Parallel()
	for _, p := range list(t) {
		for _, wrong := range slices.Concat(p.wrongArrows(), p.wrongHomes(), p.wrongTesting(), p.wrongDoc()) {
			t.Errorf("%s %s", p.ImportPath, wrong)
		}
	}
}

// TestArrowsBroken breaks each rule once: a check that cannot fail keeps nothing.
func TestArrowsBroken(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pkg  pkg
		want []string
	}{
		"sound": {
			pkg{ImportPath: "postman/dispatch", Doc: "d", Imports: []string{"context", "postman/outbox", "postman/value", "github.com/wneessen/go-mail"}},
			nil,
		},
		"a wrong direction": {
			pkg{ImportPath: "postman/cdc", Doc: "d", Imports: []string{"postman/rules"}},
			[]string{"imports postman/rules; cdc may import only itself, position, value"},
		},
		"through the room, not the folder": {
			pkg{ImportPath: "postman/dispatch/lane", Doc: "d", Imports: []string{"postman/cdc/stream"}},
			[]string{"imports postman/cdc/stream; dispatch may import only itself, position, value, bounce, outbox, rules, templates"},
		},
		"position knows value": {
			pkg{ImportPath: "postman/position", Doc: "d", Imports: []string{"postman/value"}},
			[]string{"imports postman/value; position may import only itself"},
		},
		"a helper of the tests in the daemon": {
			pkg{ImportPath: "postman/daemon", Doc: "d", Imports: []string{"postman/internal/pgcluster"}},
			[]string{"imports postman/internal/pgcluster; daemon may import only itself, position, value, bounce, cdc, dispatch, maildns, outbox, rules, templates"},
		},
		"a room nobody drew": {
			pkg{ImportPath: "postman/util", Doc: "d"},
			[]string{"is a new room: draw its arrows in docs/architecture.md and here"},
		},
		"SMTP in the rules": {
			pkg{ImportPath: "postman/rules", Doc: "d", Imports: []string{"github.com/wneessen/go-mail/smtp"}},
			[]string{"imports github.com/wneessen/go-mail/smtp, which lives in dispatch"},
		},
		"testing": {
			pkg{ImportPath: "postman/daemon", Doc: "d", Imports: []string{"testing"}},
			[]string{"imports testing"},
		},
		"testing in the binary, through a test server": {
			pkg{ImportPath: "postman/cmd/postman", Name: "main", Doc: "d", Deps: []string{"testing"}},
			[]string{"has testing in the binary; go list -deps tells through whom"},
		},
		"undocumented": {
			pkg{ImportPath: "postman/value"},
			[]string{"has no package comment"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := slices.Concat(test.pkg.wrongArrows(), test.pkg.wrongHomes(), test.pkg.wrongTesting(), test.pkg.wrongDoc())
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func (p pkg) wrongArrows() (wrong []string) {
	from := room(p.ImportPath)
	allowed, ok := arrows[from]
	if !ok {
		return []string{"is a new room: draw its arrows in docs/architecture.md and here"}
	}
	if from != "position" && from != "value" {
		allowed = append([]string{"position", "value"}, allowed...)
	}
	for _, path := range p.Imports {
		if to := room(path); to != "" && to != from && !slices.Contains(allowed, to) {
			wrong = append(wrong, fmt.Sprintf("imports %s; %s may import only %s", path, from,
				strings.Join(append([]string{"itself"}, allowed...), ", ")))
		}
	}
	return wrong
}

func (p pkg) wrongHomes() (wrong []string) {
	for _, path := range p.Imports {
		for library, home := range homes {
			from := room(p.ImportPath)
			if within(path, library) && from != home && from != "internal" {
				wrong = append(wrong, fmt.Sprintf("imports %s, which lives in %s", path, home))
			}
		}
	}
	return wrong
}

// wrongTesting lets the packages that serve tests import testing, and keeps it out of the binary all the same.
func (p pkg) wrongTesting() []string {
	serves := room(p.ImportPath) == "internal" || strings.HasSuffix(p.ImportPath, "test")
	switch {
	case slices.Contains(p.Imports, "testing") && !serves:
		return []string{"imports testing"}
	case slices.Contains(p.Deps, "testing") && p.Name == "main":
		return []string{"has testing in the binary; go list -deps tells through whom"}
	}
	return nil
}

func (p pkg) wrongDoc() []string {
	if p.Doc == "" {
		return []string{"has no package comment"}
	}
	return nil
}

// room is the first element of a path below the module: cmd, cdc, outbox …; empty for everybody else's packages.
func room(importPath string) string {
	if importPath == "postman" {
		return "the example"
	}
	path, _ := strings.CutPrefix(importPath, "postman/")
	if path == importPath {
		return ""
	}
	first, _, _ := strings.Cut(path, "/")
	return first
}

func within(path, library string) bool {
	return path == library || strings.HasPrefix(path, library+"/")
}

// list returns the module's packages that have more than tests.
func list(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json", "./...").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("go list: %v\n%s", err, exit.Stderr)
	}
	if err != nil {
		t.Fatal(err)
	}
	var packages []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("reading go list: %v", err)
		}
		// Looking at the folder makes it an input of this test: go test does not see what go list read, and would
		// answer from its cache.
		if _, err := os.ReadDir(p.Dir); err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			packages = append(packages, p)
		}
	}
	if !slices.ContainsFunc(packages, func(p pkg) bool { return p.ImportPath == "postman/position" }) {
		t.Fatal("go list ./... does not show the module's packages")
	}
	return packages
}
