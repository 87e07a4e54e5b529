package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReadAddresses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []entry
		err  string
	}{
		"an address a line":      {text: "kim@example.com\n\n# a comment\r\n  lee@example.com  \r\n", want: []entry{{1, "kim@example.com", ""}, {4, "lee@example.com", ""}}},
		"a byte order mark":      {text: "\ufeffkim@example.com", want: []entry{{1, "kim@example.com", ""}}},
		"two columns, no header": {text: "kim@example.com,550 unknown\nlee@example.com\n", want: []entry{{1, "kim@example.com", "550 unknown"}, {2, "lee@example.com", ""}}},
		"a header":               {text: "Reason\tEmail Address\nfull\tkim@example.com\n", want: []entry{{2, "kim@example.com", "full"}}},
		"a header alone":         {text: "email\nkim@example.com\n", want: []entry{{2, "kim@example.com", ""}}},
		"an address, no reason":  {text: "email,date\nkim@example.com,today\n", want: []entry{{2, "kim@example.com", ""}}},
		"quotes":                 {text: "\"kim@example.com\",\"said \"\"no\"\", twice\"\n", want: []entry{{1, "kim@example.com", `said "no", twice`}}},
		"a short line":           {text: "date,email\ntoday\n", want: []entry{{2, "", ""}}},
		"a stray quote":          {text: "kim\"@example.com,x\n", want: []entry{{1, `kim"@example.com`, "x"}}},
		"nothing":                {text: "# nobody\n", err: "there is no address"},
		"another encoding":       {text: "kim@example.com\nl\xe9e@example.com\n", err: "line 2 is not UTF-8"},
		"no list at all":         {text: strings.Repeat("x", 70_000), err: "longer than 64 kB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := readAddresses(strings.NewReader(c.text))
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) || c.err == "" && err != nil {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(entry{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzReadAddresses(f *testing.F) {
	f.Add("email;reason\nkim@example.com;\"full\"\n")
	f.Add("\ufeffkim@example.com\r\n,\n\"\n")
	f.Fuzz(func(t *testing.T, text string) {
		lines := strings.Count(text, "\n") + 1
		all, err := readAddresses(strings.NewReader(text))
		if err == nil && len(all) == 0 {
			t.Error("neither an address nor an error")
		}
		for i, e := range all {
			if e.line < 1 || e.line > lines || i > 0 && e.line <= all[i-1].line {
				t.Errorf("entry %d is of line %d of %d", i, e.line, lines)
			}
		}
	})
}
