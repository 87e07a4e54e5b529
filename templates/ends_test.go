package templates

import (
	"fmt"
	"strings"
	"testing"
)

// What is nested, repeated or chained without end is refused, or loads; it neither crashes nor hangs.
func TestLoadEnds(t *testing.T) {
	t.Parallel()
	chain := func(n int, call string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{{define "x%d"}}`+call+`{{end}}`, i, i+1)
		}
		fmt.Fprintf(&b, `{{define "x%d"}}{{end}}`, n)
		return b.String()
	}
	ranges := strings.Repeat("{{range .}}", maxRanges) + `{{template "x%d" .}}` + strings.Repeat("{{end}}", maxRanges)
	for name, c := range map[string]struct {
		file string
		want string // in the error; empty: it loads
	}{
		"ifs":                         {whole(strings.Repeat("{{if 1}}", 5_000) + strings.Repeat("{{end}}", 5_000)), "nested too deep"},
		"ifs without end":             {whole(strings.Repeat("{{if 1}}", 10_000)), "unexpected EOF"},
		"parentheses":                 {whole("{{" + strings.Repeat("(", 500_000)), "depth exceeded"},
		"closed parentheses":          {whole("{{" + strings.Repeat("(", 5000) + "1" + strings.Repeat(")", 5000) + "}}"), "nested too deep"},
		"else if":                     {whole("{{if 1}}" + strings.Repeat("{{else if 1}}", 5_000) + "{{end}}"), "nested too deep"},
		"many functions that are not": {whole(strings.Repeat("{{x}}", 5_000)), "no function x"},
		"a chain of blocks":           {whole(`{{template "x0" .}}`) + chain(maxBlocks-3, `{{template "x%d" .}}`), ""},
		"a longer chain":              {whole(`{{template "x0" .}}`) + chain(5_000, `{{template "x%d" .}}`), "it has 5003 blocks"},
		"many blocks that are not":    {whole(strings.Repeat(`{{template "y"}}`, 5_000)), "no block"},
		"a chain of ranges":           {whole(`{{template "x0" .}}`) + chain(60, ranges), ""},
		"a large file":                {whole(strings.Repeat("a", maxFile)), "larger than"},
		"a file that just fits":       {whole(strings.Repeat("a", maxFile-100)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(folderOf(map[string]string{"m.html": c.file}))
			switch {
			case c.want == "" && err != nil:
				t.Errorf("error %.300v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("error %.300v, want %s", err, c.want)
			}
		})
	}
}
