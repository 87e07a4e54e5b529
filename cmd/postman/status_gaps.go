package main

import (
	"fmt"
	"strings"

	"postman/daemon"
)

// printGaps tells the gaps that are still somebody's to see to, and how many others there are; or all of them.
func printGaps(w *strings.Builder, gaps []daemon.GapStatus, all bool) {
	var open []daemon.GapStatus
	mended, accepted := 0, 0
	for i := range gaps {
		switch {
		case all || !gaps[i].Settled():
			open = append(open, gaps[i])
		case gaps[i].Replay != 0:
			mended++
		default:
			accepted++
		}
	}
	if len(gaps) == 0 {
		return
	}
	fmt.Fprintf(w, "\ngaps\n")
	for i := range open {
		printGap(w, &open[i])
	}
	var others []string
	if mended > 0 {
		others = append(others, number(mended, "was made up for", "were made up for"))
	}
	if accepted > 0 {
		others = append(others, number(accepted, "was accepted", "were accepted"))
	}
	if len(others) > 0 {
		fmt.Fprintf(w, "  %s (postman status --all)\n", strings.Join(others, ", "))
	}
}

func printGap(w *strings.Builder, g *daemon.GapStatus) {
	fmt.Fprintf(w, "  %d  %s\n", g.ID, gapText(g))
	switch {
	case g.Accepted != nil:
		fmt.Fprintf(w, "     accepted by %s, %s: %s\n", g.Accepted.By, when(g.Accepted.At), g.Accepted.Why)
	case g.Replay != 0:
		fmt.Fprintf(w, "     made up for by replay %d\n", g.Replay)
	case g.Stays != "":
		fmt.Fprintf(w, "     no replay makes up for it: %s\n", g.Stays)
		or := ""
		if g.Mend != "" {
			fmt.Fprintf(w, "     → once that has changed: %s\n", g.Mend)
			or = "or "
		}
		if g.Accept != "" {
			fmt.Fprintf(w, "     → %ssee to it by other means, then %s\n", or, g.Accept)
		}
	case g.JournalFrom != "":
		fmt.Fprintf(w, "     ! the journal begins at %s by now: what lies before is lost\n", g.JournalFrom)
		if g.Mend != "" {
			fmt.Fprintf(w, "     → of the rest: %s\n", g.Mend)
		}
		if g.Accept != "" {
			fmt.Fprintf(w, "     → see to the other by other means, then %s\n", g.Accept)
		}
	case g.Endless():
		fmt.Fprintf(w, "     → nothing is streamed until you decide: %s\n", daemon.AcceptGapAdvice)
	case g.Accept != "":
		fmt.Fprintf(w, "     → no replay brings it back: see to it by other means, then %s\n", g.Accept)
	case g.Mend != "":
		fmt.Fprintf(w, "     → %s\n", g.Mend)
	}
}

// gapText is a gap in a line: lost, or of how many changes, of whom, from where to where, and why.
func gapText(g *daemon.GapStatus) string {
	text, to := g.Rule, g.To
	if text == "" {
		text = "all rules"
	}
	if to == "" {
		to = "…"
	}
	text += "  " + g.From + " to " + to
	if g.Lost {
		text += ", lost"
	}
	if n := g.Changes(); n > 0 {
		text += ", " + number(int(n), "change", "changes")
	}
	return text + ": " + firstLine(g.Reason)
}
