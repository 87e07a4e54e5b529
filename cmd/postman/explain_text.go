package main

import (
	"cmp"
	"fmt"
	"strings"
	"text/tabwriter"

	"postman/authoring"
	"postman/daemon"
)

// printer writes paragraphs with titles.
type printer struct {
	strings.Builder
	in paint
}

func (w *printer) printf(format string, args ...any) { fmt.Fprintf(&w.Builder, format, args...) }

func (w *printer) title(text string) { w.WriteString("\n" + w.in.in(bold, text) + "\n") }

// table writes rows of cells, indented.
func (w *printer) table(rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, "  "+strings.Join(row, "\t")) //nolint:errcheck // into memory
	}
	t.Flush() //nolint:errcheck // likewise
}

func (w *printer) indented(text string) {
	for line := range strings.Lines(text) {
		w.WriteString("  " + line)
	}
}

func explainText(in paint, v *daemon.ExplainView, file string) string {
	w := &printer{in: in}
	m := &v.Match
	if v.Message != nil {
		w.printf("%s to %s: %s%s\n", in.in(bold, fmt.Sprintf("message %d", v.Message.ID)), addressOf(v.Message), v.Message.Standing(), because(v.Message.Reason))
	} else {
		w.printf("%s: %s%s\n", in.in(bold, fmt.Sprintf("match m%d", m.ID)), m.State, because(m.Reason))
	}
	facts := [][]string{{"rule", v.Rule.Name + because(v.Rule.About)}}
	version := "version " + v.Rule.Version
	if !v.Rule.FirstUsed.IsZero() {
		version += ", first used " + when(v.Rule.FirstUsed)
	}
	facts = append(facts, []string{"", version}, []string{"match", fmt.Sprintf("m%d at %s, transaction %d, committed %s", m.ID, m.Position, m.XID, when(m.Committed))})
	if v.Message != nil {
		facts = append(facts, []string{"subject", cmp.Or(v.Message.Subject, "–")}, []string{"message-id", cmp.Or(v.Message.MessageID, "–")})
	}
	w.table(facts)
	w.change(&v.Change)
	w.condition(&v.Condition, "the rule as it was")
	w.recipients(v)
	w.queries(v.Queries)
	w.gates(v.Gates)
	w.mail(v, file)
	w.attempts(v.Attempts)
	if len(v.Notes) > 0 {
		w.title("to be known")
		for _, n := range v.Notes {
			w.WriteString("  " + n + "\n")
		}
	}
	w.unknown(v.Unknown)
	if v.Rule.Text != "" {
		w.title("the rule as it was")
		w.numbered(v.Rule.Text)
	}
	return w.String()
}

// change tells what happened, what changed first, and at last what is NULL.
func (w *printer) change(c *daemon.ChangeView) {
	switch {
	case c.Op == "":
		return
	case c.Prefix != "":
		w.title("the message " + c.Prefix)
	default:
		w.title(c.Op + " of " + c.Table)
	}
	var rows [][]string
	var nulls []string
	for _, column := range append(c.Columns, c.Keys...) {
		text := cmp.Or(column.New, column.Old).String()
		switch {
		case column.Changed:
			rows = append(rows, []string{"* " + column.Name, oneLine(column.Old.String() + " → " + text)})
		case text == daemon.NullText:
			nulls = append(nulls, column.Name)
		case c.Op == "update":
			rows = append(rows, []string{"  " + column.Name, oneLine(text)})
		default:
			rows = append(rows, []string{column.Name, oneLine(text)})
		}
	}
	w.table(rows)
	if len(nulls) > 0 {
		w.WriteString("  " + w.in.in(dim, "NULL: "+strings.Join(nulls, ", ")) + "\n")
	}
}

// oneLine shortens a value to what fits beside its name.
func oneLine(text string) string {
	const most = 160
	line := []rune(strings.Join(strings.Fields(text), " "))
	if len(line) > most {
		line = append(line[:most], '…')
	}
	return string(line)
}

// condition tells each clause of `when`, with its line in what lines names.
func (w *printer) condition(c *daemon.ConditionView, lines string) {
	switch {
	case c.Verdict == "":
		return
	case c.Excluded != "":
		w.title("when: not asked")
		w.WriteString("  " + c.Excluded + "\n")
		return
	case c.Error != "":
		w.title("when: it could not be tried")
		w.WriteString("  " + oneLine(c.Error) + "\n")
	case c.When == nil:
		w.title("when: the rule has none, so every such change matches")
		return
	default:
		w.title("when: " + c.Verdict + w.in.in(dim, "   with the lines of "+lines))
	}
	w.indented(c.Text(w.mark))
}

// The marks of what is told, and their colours.
const (
	yes, no, unknown, idle, wait = "✓", "✗", "?", "·", "…"
)

var marks = map[string]string{yes: green, no: red, unknown: yellow, wait: yellow}

func (w *printer) mark(mark, text string) string {
	if mark == idle {
		return w.in.in(dim, text)
	}
	return w.in.in(marks[mark], mark) + strings.TrimPrefix(text, mark)
}

func (w *printer) recipients(v *daemon.ExplainView) {
	if len(v.Recipients) == 0 {
		return
	}
	w.title("recipients")
	for _, r := range v.Recipients {
		if v.Message == nil {
			w.printf("  %d  ", r.Message)
		} else {
			w.WriteString("  ")
		}
		w.WriteString(cmp.Or(r.Address, "(no address)"))
		if v.Message == nil {
			for i := range v.Messages {
				if m := &v.Messages[i]; m.ID == r.Message {
					w.printf("   %s%s", m.Standing(), because(m.Reason))
				}
			}
		}
		if r.Origin != "" {
			w.WriteString("   from " + r.Origin)
		}
		w.WriteByte('\n')
		var row []string
		for _, c := range r.Row {
			switch {
			case c.Withheld != "":
				row = append(row, c.Name+" ("+c.Withheld+")")
			case c.Name != "email" && c.Text != nil:
				row = append(row, c.Name+" "+*c.Text)
			}
		}
		if len(row) > 0 {
			w.WriteString("      " + strings.Join(row, ", ") + "\n")
		}
		if len(r.CC) > 0 {
			w.WriteString("      cc " + strings.Join(r.CC, ", ") + "\n")
		}
	}
}

// queries tells what the database was asked, or would be.
func (w *printer) queries(all []daemon.QueryView) {
	if len(all) == 0 {
		return
	}
	w.title("queries, with their values")
	for _, q := range all {
		w.printf("  %s, line %d\n", q.For, q.Line)
		for line := range strings.Lines(q.SQL + "\n") {
			w.WriteString("      " + line)
		}
	}
}

func (w *printer) gates(gates []daemon.GateView) {
	if len(gates) == 0 {
		return
	}
	w.title("gates")
	widest := 0
	for _, g := range gates {
		widest = max(widest, len(g.Gate))
	}
	for _, g := range gates {
		mark := yes
		switch g.Outcome {
		case "stopped":
			mark = no
		case "waiting":
			mark = wait
		}
		w.printf("  %s %-*s  %s\n", w.in.in(marks[mark], mark), widest, g.Gate, oneLine(g.Detail))
	}
}

func (w *printer) mail(v *daemon.ExplainView, file string) {
	if v.Template.Name == "" {
		return
	}
	w.title("template")
	w.WriteString("  " + v.Template.Name)
	if v.Template.Hash != "" {
		w.printf(", hash %.12s: %s", v.Template.Hash, file)
	}
	w.WriteByte('\n')
}

func (w *printer) attempts(attempts []daemon.AttemptView) {
	if len(attempts) == 0 {
		return
	}
	w.title("attempts")
	var rows [][]string
	for i, a := range attempts {
		rows = append(rows, []string{fmt.Sprint(i + 1), when(a.Started), a.Relay + redirected(&a), fmt.Sprintf("%.1f ms", a.Took), oneLine(a.Text)})
	}
	w.table(rows)
}

func (w *printer) unknown(notes []string) {
	if len(notes) == 0 {
		return
	}
	w.title("what is not known any more")
	for _, n := range notes {
		w.WriteString("  " + n + "\n")
	}
}

// numbered writes a text with the numbers of its lines.
func (w *printer) numbered(text string) {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	digits := len(fmt.Sprint(len(lines)))
	for i, line := range lines {
		w.printf("  %s  %s\n", w.in.in(dim, fmt.Sprintf("%*d", digits, i+1)), line)
	}
}

// whyText tells why a rule does or does not match.
func whyText(in paint, v *authoring.WhyView) string {
	w := &printer{in: in}
	c := &v.Condition
	verdict, colour := "does not match", red
	switch {
	case c.Error != "":
		verdict = "could not be tried"
	case c.Verdict == "true":
		verdict, colour = "matches", green
	case c.Verdict == "undetermined":
		verdict, colour = "cannot be decided without "+c.Missing, yellow
	}
	w.printf("rule %s: %s\n", in.in(bold, v.Rule.Name), in.in(colour, verdict))
	if v.Row != "" {
		w.printf("  %s\n", v.Row)
	}
	for _, a := range v.Assumed {
		w.printf("  assumed: %s\n", a)
	}
	w.change(&v.Change)
	w.condition(c, v.Rule.File)
	w.queries(v.Queries)
	if v.Audience != nil {
		w.asked(v.Audience)
	}
	if len(v.LeftOut) > 0 {
		w.printf("\n%s the change leaves out %s, which is never NULL in the table, and on which the verdict hangs\n", in.in(yellow, "!"), strings.Join(v.LeftOut, ", "))
	}
	w.WriteString("\n" + in.in(cyan, arrow(wayOn(v))) + "\n")
	return w.String()
}

// asked tells who would get a mail, and whether somebody would.
func (w *printer) asked(a *authoring.AudienceView) {
	w.title(number(len(a.To), "recipient", "recipients") + w.in.in(dim, because(a.Reason)))
	for _, to := range a.To {
		w.WriteString("  " + to + "\n")
	}
	if a.NoAddress > 0 {
		w.printf("  %s without an address: it is NULL, or is none\n", number(a.NoAddress, "recipient is given", "recipients are given"))
	}
	switch {
	case a.Address == "":
	case a.Because != "":
		w.printf("  %s %s is given, and would get none: %s\n", w.in.in(red, no), a.Address, a.Because)
	case a.Among:
		w.printf("  %s %s is among them\n", w.in.in(green, yes), a.Address)
	case a.State == "held":
		w.printf("  %s whether %s is among them was not looked at\n", w.in.in(yellow, unknown), a.Address)
	case a.NoAddress > 0:
		w.printf("  %s %s is not among them: the sources of to give a row, and it has no address\n", w.in.in(red, no), a.Address)
	default:
		w.printf("  %s %s is not among them: neither a query nor another source of to gives it\n", w.in.in(red, no), a.Address)
	}
}

// wayOn is what to look at next.
func wayOn(v *authoring.WhyView) string {
	c := &v.Condition
	switch {
	case c.Excluded != "":
		return "on: says which changes the rule is tried on"
	case c.Error != "":
		return "such a match ends as failed, with this reason: postman outbox list --state failed"
	case c.Verdict == "true" && v.Audience != nil:
		return "postman preview " + v.Rule.Name + " shows the mail. If it happened and none came, postman outbox list --rule " + v.Rule.Name + " tells how it ended"
	case c.Verdict == "true":
		return "a mail goes out if the recipients' query gives somebody: postman preview shows it. If it happened and no mail came, postman outbox list --rule tells how it ended"
	case c.Verdict == "undetermined":
		return "such a change is recorded as undetermined and sends nothing; the table's REPLICA IDENTITY decides what the stream carries (docs/rules.md)"
	}
	return "what is marked ✗ keeps it from matching"
}
