package main

import (
	"bytes"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/daemon"
	"postman/rules"
)

// TestCheckText holds how a report reads: grouped by file, counted, and with colours the same text.
func TestCheckText(t *testing.T) {
	t.Parallel()
	r := &daemon.CheckReport{
		Findings: rules.Errors{
			{ID: "PM105", Place: rules.Place{File: "a.yaml", Line: 5, Column: 18}, Rule: "방문", Message: "the table visits has no column knd", Hint: "did you mean kind?", Line: "    when: '가' == new.knd"},
			{ID: "PM203", Place: rules.Place{File: "a.yaml", Line: 9}, Rule: "two", Message: "it is also true where it is NULL"},
			{ID: "PM221", Place: rules.Place{File: "templates/x.html"}, Message: "no rule takes this template"},
		},
		Rules: 14, Prepared: 31, Rendered: 1, WithRow: 1, Untried: []string{"2 queries were not tried: no database"},
	}
	const want = `a.yaml:5:18: error: rule "방문": the table visits has no column knd [PM105]
    when: '가' == new.knd
                  ^
    → did you mean kind?
a.yaml:9: warning: rule "two": it is also true where it is NULL [PM203]

templates/x.html: warning: no rule takes this template [PM221]

1 error, 2 warnings in 14 rules · 31 queries prepared · 1 template rendered, 1 with a real row
2 queries were not tried: no database
`
	if diff := cmp.Diff(want, checkText(painter(new(bytes.Buffer)), r)); diff != "" {
		t.Error(diff)
	}
	coloured := checkText(true, r)
	if !regexp.MustCompile("\x1b\\[1;31merror\x1b\\[0m").MatchString(coloured) {
		t.Errorf("the error is not red:\n%q", coloured)
	}
	if diff := cmp.Diff(want, regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(coloured, "")); diff != "" {
		t.Error(diff)
	}
	if got := checkText(false, &daemon.CheckReport{Rules: 1}); got != "nothing wrong in 1 rule\n" {
		t.Errorf("%q", got)
	}
}
