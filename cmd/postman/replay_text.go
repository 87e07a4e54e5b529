package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postman/daemon"
)

// planText is a plan as people read it.
func planText(in paint, v *daemon.ReplayPlan, samples bool) string {
	w := &printer{in: in}
	w.table([][]string{{"from", place(v.From)}, {"to", place(v.To)}, {"", fmt.Sprintf("%s in %s", number(int(v.Changes), "change", "changes"), number(int(v.Transactions), "transaction", "transactions"))}})
	w.rules(v)
	if v.Recipients != nil {
		w.biggest(v)
	}
	if samples {
		w.samples(v)
	}
	w.replayNotes(v)
	w.WriteString("\n" + in.in(bold, summary(v)) + "\n")
	return w.String()
}

func place(m daemon.Moment) string {
	text := m.LSN
	if !m.Time.IsZero() {
		text += "  (" + m.Time.Local().Format(time.DateTime) + ")"
	}
	return text
}

func (w *printer) rules(v *daemon.ReplayPlan) {
	if len(v.Rules) > 0 {
		rows := [][]string{{"rule", "found", "known", "sent", "to queue", "fullest hour"}}
		for i := range v.Rules {
			r := &v.Rules[i]
			known := 0
			for _, n := range r.Known {
				known += n
			}
			rows = append(rows, []string{r.Rule, daemon.Grouped(int64(r.Matches)), daemon.Grouped(int64(known)), daemon.Grouped(int64(r.Sent)), daemon.Grouped(int64(r.Queue + r.Resend)), hour(r.Hour)})
		}
		w.title("rules")
		w.table(rows)
		for i := range v.Rules {
			for _, line := range asides(&v.Rules[i]) {
				w.WriteString("  " + w.in.in(yellow, "!") + " " + v.Rules[i].Rule + ": " + line + "\n")
			}
		}
	}
	if v.Silent > 0 {
		w.WriteString("  " + w.in.in(dim, number(v.Silent, "rule finds nothing", "rules find nothing")) + "\n")
	}
}

func hour(h *daemon.BusyHour) string {
	if h == nil {
		return "–"
	}
	return fmt.Sprintf("%s at %s", daemon.Grouped(int64(h.Matches)), h.Start.Local().Format("2006-01-02 15:04"))
}

// asides are what is to be known of a rule beside its numbers.
func asides(r *daemon.ReplayRule) (lines []string) {
	add := func(n int, one, more string) {
		if n > 0 {
			lines = append(lines, number(n, one, more))
		}
	}
	if r.Excluded != "" {
		lines = append(lines, "not replayed: "+r.Excluded)
	}
	add(r.Again-r.Unmuted, "of them failed before, and waits again", "of them failed before, and wait again")
	add(r.Unmuted, "of them was muted, and is sent", "of them were muted, and are sent")
	add(r.Late, "match would end as expired", "matches would end as expired")
	add(r.Muted, "match is muted (--muted sends it)", "matches are muted (--muted sends them)")
	add(r.Silent, "message is not sent once more: it was made while nothing was let out, and would end as not-sent", "messages are not sent once more: they were made while nothing was let out, and would end as not-sent")
	add(r.Erased, "message cannot be sent once more: its recipient was erased", "messages cannot be sent once more: their recipients were erased")
	if r.Failed > 0 {
		lines = append(lines, fmt.Sprintf("it cannot be tried on %s: %s", number(r.Failed, "change", "changes"), firstLine(r.Failure)))
	}
	if r.Undetermined > 0 {
		lines = append(lines, fmt.Sprintf("it cannot decide on %s: the stream did not carry what it reads", number(int(r.Undetermined), "change", "changes")))
	}
	if r.Unfit > 0 {
		lines = append(lines, fmt.Sprintf("%s in a shape that it does not fit: %s", number(int(r.Unfit), "change came", "changes came"), firstLine(r.Misfit)))
	}
	return append(lines, r.Unpublished...)
}

func (w *printer) biggest(v *daemon.ReplayPlan) {
	who := v.Recipients
	title := "recipients"
	if who.Asked < who.Of {
		title = fmt.Sprintf("recipients, of a sample: %s of %s matches were asked about", daemon.Grouped(int64(who.Asked)), daemon.Grouped(int64(who.Of)))
	}
	if v.Redirect != "" {
		title += ", in whose place " + v.Redirect + " gets all of it (mode redirect)"
	}
	w.title(title)
	var rows [][]string
	for _, b := range who.Biggest {
		rows = append(rows, []string{b.Address, number(b.Mails, "mail", "mails")})
	}
	w.table(rows)
	for _, n := range []struct {
		n         int
		one, more string
	}{{who.Nobody, "match has no recipient", "matches have no recipient"}, {who.NoAddress, "recipient has no address: it is NULL, or is none", "recipients have no address: it is NULL, or is none"}, {who.Held, "match has more recipients than its rule allows, and would be held", "matches have more recipients than their rules allow, and would be held"}} {
		if n.n > 0 {
			w.WriteString("  " + number(n.n, n.one, n.more) + "\n")
		}
	}
	if who.Failed > 0 {
		w.WriteString("  " + w.in.in(red, fmt.Sprintf("%s would fail: %s", number(who.Failed, "match", "matches"), firstLine(who.Failure))) + "\n")
	}
}

func (w *printer) samples(v *daemon.ReplayPlan) {
	for i := range v.Rules {
		r := &v.Rules[i]
		for j := range r.Samples {
			s := &r.Samples[j]
			w.title(fmt.Sprintf("%s, %s at %s", r.Rule, when(s.Committed), s.Position))
			if s.Note != "" {
				w.WriteString("  " + s.Note + "\n")
			}
			if s.Change != nil {
				w.changed(s.Change)
			}
		}
	}
}

// changed tells a sample's change in a line or two.
func (w *printer) changed(c *daemon.ChangeView) {
	var parts []string
	for _, column := range append(c.Columns, c.Keys...) {
		value := column.New
		if value == nil {
			value = column.Old
		}
		text := value.String()
		switch {
		case column.Changed:
			text = column.Old.String() + " → " + text
		case text == daemon.NullText, text == "":
			continue
		}
		parts = append(parts, column.Name+" "+text)
	}
	w.WriteString("  " + c.Op + " " + c.Table + c.Prefix + ": " + oneLine(strings.Join(parts, ", ")) + "\n")
}

func (w *printer) replayNotes(v *daemon.ReplayPlan) {
	if len(v.Gaps)+len(v.Notes)+len(v.Before)+len(v.Stays)+len(v.Mends) == 0 {
		return
	}
	w.title("to be known")
	for i := range v.Gaps {
		w.printf("  gap %d lies in the stretch: %s\n", v.Gaps[i].ID, gapText(&v.Gaps[i]))
	}
	for i := range v.Before {
		b := &v.Before[i]
		w.printf("  %s resent by replay %d, %s, by %s (%s); --again sends %s yet again\n", number(b.Messages, "message was", "messages were"), b.Replay, ago(b.At), b.By, b.Why,
			map[bool]string{true: "it", false: "them"}[b.Messages == 1])
	}
	for _, id := range v.Mends {
		w.printf("  this makes up for gap %d\n", id)
	}
	w.stays(v.Stays)
	for _, n := range v.Notes {
		w.WriteString("  " + n + "\n")
	}
}

// summary is the plan in a sentence.
func summary(v *daemon.ReplayPlan) string {
	n := v.Queue + v.Resend
	if n == 0 {
		return "nothing to queue"
	}
	var parts []string
	if v.Queue > 0 {
		parts = append(parts, number(v.Queue, "match", "matches")+" to queue")
	}
	if v.Resend > 0 {
		parts = append(parts, number(v.Resend, "message", "messages")+" once more")
	}
	if v.Hour != nil {
		parts = append(parts, fmt.Sprintf("at most %s an hour", daemon.Grouped(int64(v.Hour.Matches))))
	}
	if who := v.Recipients; who != nil && who.People > 0 {
		people := number(who.People, "person", "people")
		if who.Asked < who.Of {
			people = "at least " + people
		}
		parts = append(parts, people)
	}
	return strings.Join(parts, ", ")
}

// doneText is what a replay did.
func doneText(in paint, d *daemon.ReplayDone) string {
	w := &printer{in: in}
	w.printf("replay %d: %s queued", d.Replay, number(d.Added, "match", "matches"))
	if d.Again > 0 {
		w.printf(", %d again", d.Again)
	}
	if d.Resent > 0 {
		w.printf(", %s once more", number(d.Resent, "message", "messages"))
	}
	w.WriteByte('\n')
	for _, id := range d.Mended {
		w.printf("gap %d is made up for\n", id)
	}
	w.stays(d.Stays)
	for _, n := range d.Notes {
		w.WriteString(n + "\n")
	}
	return w.String()
}

// ago is how long something is ago, in words.
func ago(t time.Time) string {
	switch d := time.Since(t); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%d days ago", int(d.Hours()/24))
	}
}

// stays tells which gaps stay, and the way out.
func (w *printer) stays(list []daemon.StayingGap) {
	for _, s := range list {
		w.printf("  gap %d stays: %s\n    → once that has changed: %s\n    → or see to it by other means, then %s\n", s.Gap, firstLine(s.Why), s.Mend, s.Accept)
	}
}

func gapNumbers(ids []int64) string {
	numbers := make([]string, len(ids))
	for i, id := range ids {
		numbers[i] = strconv.FormatInt(id, 10)
	}
	return "gap " + strings.Join(numbers, " and ")
}
