package main

import (
	"fmt"

	"postman/daemon"
)

// whyAtText tells what a rule says of a transaction.
func whyAtText(in paint, v *daemon.WhyAtView) string {
	w := &printer{in: in}
	w.printf("rule %s at %s\n", in.in(bold, v.Rule.Name), v.LSN)
	if t := v.Transaction; t != nil {
		what := "the transaction"
		if t.Next {
			what = "the next transaction"
		}
		w.printf("  %s: commit %s, %s, number %d, %s of %s\n", what, t.Commit, when(t.Time), t.XID, number(len(v.Changes)+v.More, "change", "changes"), on(v))
	}
	for i := range v.Changes {
		w.changeAt(&v.Changes[i], v.Rule.File)
	}
	if v.More > 0 {
		w.printf("\nand %s more\n", number(v.More, "change", "changes"))
	}
	if len(v.Others) > 0 {
		w.title("what else the transaction did")
		var rows [][]string
		for _, o := range v.Others {
			rows = append(rows, []string{number(o.Changes, "time", "times"), o.Op, o.Table})
		}
		w.table(rows)
	}
	if len(v.Reasons) > 0 {
		w.title("to be known")
		for _, r := range v.Reasons {
			w.WriteString("  " + r + "\n")
		}
	}
	return w.String()
}

func on(v *daemon.WhyAtView) string {
	for i := range v.Changes {
		if t := v.Changes[i].Change.Table; t != "" {
			return t
		}
	}
	return "what the rule is on"
}

func (w *printer) changeAt(c *daemon.WhyChange, file string) {
	verdict, colour := "does not match", red
	switch {
	case c.Unread != "":
		verdict = "cannot be read: " + firstLine(c.Unread)
	case c.Condition.Error != "":
		verdict = "could not be tried"
	case c.Condition.Verdict == "true":
		verdict, colour = "matches", green
	case c.Condition.Verdict == "undetermined":
		verdict, colour = "cannot be decided without "+c.Condition.Missing, yellow
	}
	w.title(fmt.Sprintf("change %d: ", c.Ordinal) + w.in.in(colour, verdict))
	if c.Match != 0 {
		w.printf("  match m%d: %s\n", c.Match, c.State)
	}
	if c.Unread != "" {
		return
	}
	w.change(&c.Change)
	w.condition(&c.Condition, file)
}
