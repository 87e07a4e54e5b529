package demo

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"
)

// written is what a demo writes, for another goroutine to read.
type written struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *written) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *written) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func options(t *testing.T, out io.Writer) Options {
	return Options{
		Rules: "../../rules.yaml", Templates: "../../templates", Listen: "127.0.0.1:0",
		Stdout: out, Stderr: t.Output(), Getenv: func(string) string { return "" },
	}
}

// TestRun watches until the first mail stands in the terminal and on the page, stops, and looks for what is left behind.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out written
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, options(t, &out)) }()

	mail := regexp.MustCompile(`(?m)^  \d\d:\d\d:\d\d +[\d.]+ m?s  ([a-z-]+) +(\S+@\S+) `)
	for deadline := time.Now().Add(60 * time.Second); !mail.MatchString(out.String()); {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, out.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("no mail:\n%s", out.String())
		}
	}
	m := mail.FindStringSubmatch(out.String())
	url := regexp.MustCompile(`http://127\.0\.0\.1:\d+`).FindString(out.String())
	if body := fetch(t, url); !strings.Contains(body, m[1]) || !strings.Contains(body, m[2]) {
		t.Errorf("the page lacks %q:\n%s", m, body)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("it ended with %v", err)
	}
	folders := regexp.MustCompile(`/\S*/postman-(pg|demo)-\d+`).FindAllString(out.String(), -1)
	if len(folders) != 2 {
		t.Errorf("it names the folders %q:\n%s", folders, out.String())
	}
	for _, dir := range folders {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it left %s: %v", dir, err)
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Errorf("escapes without a terminal: %q", out.String())
	}
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestOnceNotices has one rule tell the creator, too.
func TestOnceNotices(t *testing.T) {
	t.Parallel()
	rules, err := os.ReadFile("../../rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const but = "and s.id <> @new.created_by"
	if n := strings.Count(string(rules), but); n != 1 {
		t.Fatalf("%q stands %d times in rules.yaml", but, n)
	}
	broken := strings.Replace(string(rules), but, "", 1)
	path := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
		t.Fatal(err)
	}
	var out written
	o := options(t, &out)
	o.Once, o.Rules = true, path
	if err := Run(t.Context(), o); !errors.Is(err, ErrScenario) {
		t.Fatalf("it ended with %v\n%s", err, out.String())
	}
	for _, want := range []string{
		"✕ schedule-co-assigned           3        6", "✓ password-reset                 1        1",
		"extra    schedule-co-assigned → seojun.park@onmaru.example", "extra    schedule-co-assigned → sua.lim@onmaru.example",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for listen, good := range map[string]bool{
		"": true, "127.0.0.1:8025": true, "localhost:0": true, "[::1]:0": true,
		"0.0.0.0:8025": false, ":8025": false, "192.0.2.1:80": false, "mail.example:80": false,
	} {
		if err := (&Options{Listen: listen}).Validate(); (err == nil) != good {
			t.Errorf("%q: %v", listen, err)
		}
	}
	gone := filepath.Join(t.TempDir(), "gone")
	for _, o := range []Options{{Rules: gone}, {Templates: gone}} {
		if err := o.Validate(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if err := (&Options{Rules: "once.yaml", Templates: "page"}).Validate(); err != nil {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	example := fstest.MapFS{
		"rules.yaml":            {Data: []byte("rules: []")},
		"templates/a.html":      {Data: []byte("a")},
		"templates/deep/b.html": {Data: []byte("b")},
	}
	w := &world{dir: t.TempDir(), o: Options{Example: example}}
	for name, file := range map[string]string{"rules.yaml": ".", "templates": "deep/b.html"} {
		path, err := w.files("", name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(path, file)); err != nil {
			t.Error(err)
		}
	}
	if path, err := w.files("mine.yaml", "rules.yaml"); path != "mine.yaml" || err != nil {
		t.Errorf("%s, %v", path, err)
	}
	w.o.Example = nil
	if _, err := w.files("", "rules.yaml"); err == nil || !strings.Contains(err.Error(), "--rules") {
		t.Errorf("%v", err)
	}
}

func TestWithOnce(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	for _, name := range []string{"a.yaml", "b.yml"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for from, want := range map[string][]string{
		filepath.Join(folder, "a.yaml"): {"a.yaml", "demo-once.yaml"},
		folder:                          {"a.yaml", "b.yml", "demo-once.yaml"},
	} {
		dir, err := withOnce(from, filepath.Join(t.TempDir(), "rules"))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if strings.Join(names, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %q; want %q", from, names, want)
		}
	}
	if _, err := withOnce(filepath.Join(folder, "gone.yaml"), filepath.Join(t.TempDir(), "rules")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
