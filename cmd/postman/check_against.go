package main

import (
	"fmt"
	"strings"

	"postman/daemon"
)

// againstText tells what rules that differ from the live ones make of the journal.
func againstText(in paint, a *daemon.AgainstReport) string {
	w := &printer{in: in}
	w.printf("since %s: %s changes\n", place(a.From), daemon.Grouped(a.Changes))
	for _, n := range a.Notes {
		w.WriteString("  " + n + "\n")
	}
	for i := range a.Rules {
		r := &a.Rules[i]
		w.printf("  %s (%s)  %s\n", in.in(bold, r.Rule), r.What, difference(in, r))
		for _, line := range differences(r) {
			w.WriteString("      " + line + "\n")
		}
	}
	switch {
	case len(a.Rules) == 0:
		w.WriteString("  every rule is as it is live\n")
	case a.Same > 0:
		w.WriteString("  " + in.in(dim, number(a.Same, "rule is", "rules are")+" as live") + "\n")
	}
	return w.String()
}

// difference is a rule in a line: +312 / −4, at most 40 an hour, 30 would be held.
func difference(in paint, r *daemon.AgainstRule) string {
	if r.Excluded != "" {
		return in.in(yellow, "not tried: "+r.Excluded)
	}
	parts := []string{in.in(green, "+"+daemon.Grouped(int64(r.Added.Matches))) + " / " + in.in(red, "−"+daemon.Grouped(int64(r.Taken.Matches)))}
	if r.Hour != nil {
		parts = append(parts, fmt.Sprintf("at most %s an hour", daemon.Grouped(int64(r.Hour.Matches))))
	}
	if r.Held > 0 {
		parts = append(parts, in.in(yellow, fmt.Sprintf("%s of %s would be held", daemon.Grouped(int64(r.Held)), daemon.Grouped(int64(r.After)))))
	}
	return strings.Join(parts, ", ")
}

func differences(r *daemon.AgainstRule) (lines []string) {
	tell := func(what string, m daemon.AgainstMails) {
		if m.Asked == 0 {
			return
		}
		of := ""
		if m.Asked < m.Matches {
			of = fmt.Sprintf(" (asked of %d of them)", m.Asked)
		}
		lines = append(lines, fmt.Sprintf("%s: %s to %s%s", what, number(m.Mails, "mail", "mails"), number(m.People, "person", "people"), of))
	}
	tell("added", r.Added)
	tell("taken away", r.Taken)
	if r.Stay.Mails+r.Stay.Fewer > 0 {
		lines = append(lines, fmt.Sprintf("of the matches that stay: +%d / −%d mails (asked of %d of %d)", r.Stay.Mails, r.Stay.Fewer, r.Stay.Asked, r.Stay.Matches))
	}
	if r.Undetermined > 0 {
		lines = append(lines, fmt.Sprintf("it cannot decide on %s: the stream did not carry what it reads", number(int(r.Undetermined), "change", "changes")))
	}
	if r.Unfit > 0 {
		lines = append(lines, fmt.Sprintf("%s in a shape that it does not fit: %s", number(int(r.Unfit), "change came", "changes came"), firstLine(r.Misfit)))
	}
	return append(lines, r.Unpublished...)
}
