package authoring

import (
	"cmp"
	"fmt"
	"regexp"
	"time"

	"postman/cdc"
	"postman/rules"
)

var (
	notThere    = regexp.MustCompile(`there is no \.(\w+)(?:\.(\w+))?`)
	noRecipient = regexp.MustCompile(`@to\.(.+): there is no such column`)
)

// lacking says how to give what a template or a query does not find.
func (t *trial) lacking(err error) string {
	if t.last.given == nil {
		return ""
	}
	if m := noRecipient.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Sprintf("give it, as the query would: given: {to: [{%s: …}]}", m[1])
	}
	m := notThere.FindStringSubmatch(err.Error())
	if m == nil {
		return ""
	}
	column := cmp.Or(m[2], "column")
	if m[1] == "to" {
		return fmt.Sprintf("or give it, as the query would: given: {to: [{%s: …}]}", column)
	}
	for _, l := range t.rule.Load {
		if l.Name == m[1] {
			return map[bool]string{
				false: fmt.Sprintf("or give it, as the query would: given: {load: {%s: {%s: …}}}", l.Name, column),
				true:  fmt.Sprintf("or give it, as the query would: given: {load: {%s: [{%s: …}]}}", l.Name, column),
			}[l.All]
		}
	}
	return ""
}

// hints tells what the verdict hangs on although the test does not say it.
func (t *trial) hints(s *rules.TestStep, change *cdc.Change, h *happened) {
	if t.tx == nil {
		for _, name := range t.rule.LeftOut(s, h.facts) {
			t.note("%s is left out and so NULL, which it never is in the table; the outcome hangs on it", name)
		}
	}
	if t.timed() || len(t.result.Failures) == 0 {
		return
	}
	for _, year := range []int{1970, 2200} {
		tx := cdc.Tx{Time: time.Date(year, time.January, 1, 0, 0, 0, 0, time.UTC)}
		if t.rule.Explain(tx, change).Verdict.Truth != h.trace.Verdict.Truth {
			t.note("the outcome hangs on commit_time, which is %s where a test has no at", h.tx.Time.Format(time.RFC3339))
			return
		}
	}
}

// timed says whether the test says when it happens.
func (t *trial) timed() bool {
	for _, s := range t.test.Steps[:t.at+1] {
		if !s.At.IsZero() {
			return true
		}
	}
	return false
}
