package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"

	"github.com/google/go-cmp/cmp"
)

// People read a mistake in the lines that it has; a program reads JSON, where each record is one line.
func TestLogOfSeveralLines(t *testing.T) {
	t.Parallel()
	mistake := "rules.yaml:5:15: no column knd [PM105]\n    when: new.knd == \"meeting\"\n              ^\ntime=2026-11-22 level=INFO msg=forged\x1b[2K\n"
	var text, json bytes.Buffer
	for _, c := range []struct {
		format string
		to     *bytes.Buffer
	}{{"text", &text}, {"json", &json}} {
		log, err := NewLogger(c.to, Log{Level: "info", Format: c.format})
		if err != nil {
			t.Fatal(err)
		}
		log = log.With("component", "stream")
		log.Error(mistake, "rule", "visit", "error", errors.New("first\nsecond"), "n", 1) //nolint:sloglint // reports have the error for their message
		log.Info("one line", "error", errors.New("short"))
	}
	var got []string
	for line := range strings.Lines(text.String()) {
		_, after, found := strings.Cut(line, "Z ")
		if !found || !strings.HasPrefix(line, "time=") {
			_, after, _ = strings.Cut(line, "+")
		}
		if !strings.HasPrefix(line, "time=") {
			after = line
		}
		if i := strings.Index(after, "level="); strings.HasPrefix(line, "time=") && i > 0 {
			after = after[i:]
		}
		got = append(got, strings.TrimSuffix(after, "\n"))
	}
	want := []string{
		`level=ERROR msg="rules.yaml:5:15: no column knd [PM105]" component=stream rule=visit error=first n=1`,
		`        when: new.knd == "meeting"`,
		`                  ^`,
		`    time=2026-11-22 level=INFO msg=forged�[2K`,
		`    second`,
		`level=INFO msg="one line" component=stream error=short`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := strings.Count(json.String(), "\n"); n != 2 {
		t.Errorf("%d lines of JSON: %s", n, json.String())
	}
}

// What a slog.Handler promises holds, and records of many goroutines do not mix.
func TestReadableIsAHandler(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	slogtest.Run(t, func(*testing.T) slog.Handler {
		out.Reset()
		return newReadable(&out, nil)
	}, func(t *testing.T) map[string]any {
		t.Helper()
		record := make(map[string]any)
		for part := range strings.FieldsSeq(out.String()) {
			key, value, _ := strings.Cut(part, "=")
			in := record
			for group, rest, more := strings.Cut(key, "."); more; group, rest, more = strings.Cut(key, ".") {
				if in[group] == nil {
					in[group] = make(map[string]any)
				}
				in, key = in[group].(map[string]any), rest
			}
			in[key] = value
		}
		return record
	})
	out.Reset()
	log := slog.New(newReadable(&out, nil))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 50 {
				log.Error("a\nb\nc")
			}
		})
	}
	group.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	for i := 0; i+2 < len(lines); i += 3 {
		if !strings.HasSuffix(lines[i], "msg=a") || lines[i+1] != "    b" || lines[i+2] != "    c" {
			t.Fatalf("records mix: %q", lines[i:i+3])
		}
	}
}
