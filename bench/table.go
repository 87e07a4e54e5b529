package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// line is one line of the table: a quantity that was measured in several rounds on both sides, or on one.
type line struct {
	what, unit string
	bare, ours []float64 // by round; bare may be empty: then there is nothing to compare with
	bar        float64   // what the ratio, or without a bare side the worst value, must keep; 0: nothing is promised
	atLeast    bool      // the bar is a floor
}

// verdict compares with the bar.
func (l *line) verdict() string {
	if l.bar == 0 {
		return ""
	}
	sign, value := "≤", median(ratios(l.ours, l.bare))
	if len(l.bare) == 0 {
		value = slices.Max(l.ours)
	}
	kept := value <= l.bar
	if l.atLeast {
		if len(l.bare) == 0 {
			value = slices.Min(l.ours)
		}
		sign, kept = "≥", value >= l.bar
	}
	word := "ok"
	if !kept {
		word = "MISSED"
	}
	return fmt.Sprintf("%s %g\t%s", sign, l.bar, word)
}

func (l *line) spread() string {
	r := ratios(l.ours, l.bare)
	if len(r) == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f (%.2f … %.2f)", median(r), slices.Min(r), slices.Max(r))
}

// amount prints a median with three digits that count, and its unit.
func amount(values []float64, unit string) string {
	if len(values) == 0 {
		return ""
	}
	v := median(values)
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

// table prints the lines of one benchmark under a headline that says what was done.
func table(w io.Writer, headline string, lines []line) error {
	var text, cells strings.Builder
	text.WriteString("\n" + headline + "\n")
	cells.WriteString("  \tbare\tpostman\tratio (min … max)\tbar\t\n")
	for _, l := range lines {
		fmt.Fprintf(&cells, "  %s\t%s\t%s\t%s\t%s\t\n", l.what, amount(l.bare, l.unit), amount(l.ours, l.unit), l.spread(), l.verdict())
	}
	t := tabwriter.NewWriter(&text, 0, 0, 3, ' ', 0)
	if _, err := io.WriteString(t, cells.String()); err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, text.String())
	return err
}
