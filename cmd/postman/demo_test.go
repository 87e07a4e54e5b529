package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDemoOnce plays the scenario with the repository's own rules and templates.
func TestDemoOnce(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	code := run([]string{"demo", "--once", "--rules", "../../rules.yaml", "--templates", "../../templates"}, &out, &errs)
	warned := strings.Count(errs.String(), "level=") // of the import that is held, and of nothing else
	if code != 0 || !strings.Contains(out.String(), "exactly the mails that were expected") || warned != strings.Count(errs.String(), "level=WARN msg=\"25 matches of rule team-listing-price-cut held") {
		t.Errorf("exit %d\n%s\n%s", code, out.String(), errs.String())
	}
}

// TestDemoFails is about what a demo cannot begin with: each ends with a message that tells the way out.
func TestDemoFails(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(rules, []byte("rules:\n  - name: x\n    wenn: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		args []string
		pg   string // POSTMAN_TEST_PG
		code int
		says []string
	}{
		"no Postgres":       {args: []string{"--once"}, pg: "/nonexistent", code: exitFailed, says: []string{"✕ Postgres", "/nonexistent", "initdb"}},
		"open to the world": {args: []string{"--listen", "0.0.0.0:8025"}, code: exitUsage, says: []string{"0.0.0.0:8025", "loopback"}},
		"broken rules":      {args: []string{"--once", "--rules", rules, "--templates", "../../templates"}, code: exitUsage, says: []string{"✕ postman", "rules.yaml:3", "wenn"}},
		"no rules":          {args: []string{"--once", "--rules", "/nonexistent/rules.yaml"}, code: exitUsage, says: []string{"/nonexistent/rules.yaml"}},
		"a flag unknown":    {args: []string{"--twice"}, code: exitUsage, says: []string{"--twice"}},
	} {
		t.Run(name, func(t *testing.T) {
			if test.pg != "" {
				t.Setenv("POSTMAN_TEST_PG", test.pg)
			}
			var out, errs strings.Builder
			code := run(append([]string{"demo"}, test.args...), &out, &errs)
			if code != test.code {
				t.Errorf("exit %d; want %d", code, test.code)
			}
			for _, want := range test.says {
				if !strings.Contains(out.String()+errs.String(), want) {
					t.Errorf("says no %q:\n%s\n%s", want, out.String(), errs.String())
				}
			}
		})
	}
}
