package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"postman/daemon"
)

// printHeld tells what waits for an operator, a line for each batch.
func printHeld(w *strings.Builder, held []daemon.HeldView) {
	for i := range held {
		fmt.Fprintf(w, "held       %s\n", heldLine(&held[i]))
	}
}

// heldLine is a batch in a line.
func heldLine(v *daemon.HeldView) string {
	line := fmt.Sprintf("%s  %s of rule %s, since %s: %s", v.Name(), number(v.Held, "match", "matches"), v.Rule, when(v.Committed), v.Why)
	if v.Action != "" {
		return line + "; " + string(v.Action) + " is under way"
	}
	return line
}

// printBatches are the lines of a list.
func printBatches(w *strings.Builder, batches []daemon.HeldView) {
	header := "BATCH\tCOMMITTED\tRULE\tHELD\tEXPIRES\tREASON\n"
	for i := range batches {
		v := &batches[i]
		w.WriteString(header)
		header = ""
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\n", v.Name(), when(v.Committed), v.Rule, v.Held, when(v.Expires), v.Why)
	}
}

// batch asks for what is known of a batch.
func (p *program) batch(id int64) (view daemon.HeldShowView, text []byte, err error) {
	text, err = p.ask(http.MethodGet, fmt.Sprintf("/v1/outbox/batches/%d", id), nil, &view)
	return view, text, err
}

// showBatch prints a batch and some of its mails.
func (p *program) showBatch(id int64, asJSON bool) error {
	view, text, err := p.batch(id)
	if err != nil {
		return fmt.Errorf("outbox show b%d: %w", id, err)
	}
	if asJSON {
		_, err = p.stdout.Write(text)
		return err
	}
	var w strings.Builder
	printBatch(&w, &view)
	_, err = io.WriteString(p.stdout, w.String())
	return err
}

func printBatch(w *strings.Builder, v *daemon.HeldShowView) {
	b := &v.Batch
	fmt.Fprintf(w, "batch %s   rule %s: %s\n", b.Name(), b.Rule, b.Why)
	fmt.Fprintf(w, "    held        %d of %s\n", b.Held, number(b.Total, "match", "matches"))
	fmt.Fprintf(w, "    began with  transaction %d at %s, committed %s\n", b.XID, b.LSN, when(b.Committed))
	if !b.Last.Equal(b.Committed) {
		fmt.Fprintf(w, "    latest      committed %s\n", when(b.Last))
	}
	switch {
	case b.Action != "":
		fmt.Fprintf(w, "    ordered     %s, %s%s\n", b.Action, when(b.Ordered), because(b.Reason))
	case !b.Expires.IsZero():
		fmt.Fprintf(w, "    expires     %s: what waits then is discarded\n", when(b.Expires))
	}
	printSample(w, v.Sample)
	if b.Held > 0 && b.Action == "" {
		fmt.Fprintf(w, "\n  → postman outbox release %s        %s\n  → postman outbox discard %[1]s --reason WHY\n", b.Name(), rechecks(v))
	}
}

// rechecks says what a release looks at again.
func rechecks(v *daemon.HeldShowView) string {
	if v.Unchecked != "" {
		return "expiry and suppression are checked again; the condition is not: " + v.Unchecked
	}
	return "each row's condition, expiry and suppression are checked again"
}

func printSample(w *strings.Builder, sample []daemon.HeldSample) {
	for i := range sample {
		s := &sample[i]
		row := ""
		if s.Row != "" {
			row = "   " + s.Row
		}
		fmt.Fprintf(w, "\n  match m%d%s   committed %s\n", s.Match, row, s.Committed.Local().Format(time.DateTime))
		if s.Note != "" {
			fmt.Fprintf(w, "    %s\n", firstLine(s.Note))
		}
		if len(s.To) == 0 {
			continue
		}
		fmt.Fprintf(w, "    to          %s\n    subject     %s\n", strings.Join(s.To, ", "), s.Subject)
		if i == 0 { // the others read alike
			for line := range strings.Lines(strings.TrimSpace(s.Text)) {
				fmt.Fprintf(w, "    │ %s\n", strings.TrimRight(line, "\r\n"))
			}
		}
	}
}

// announce says how much of the batches an action is about to move, before it does.
func announce(p *program, ids []int64, action string) error {
	for _, id := range ids {
		view, _, err := p.batch(id)
		if err != nil {
			return fmt.Errorf("outbox %s b%d: %w", action, id, err)
		}
		line := fmt.Sprintf("b%d: %s of rule %s", id, number(view.Batch.Held, "match", "matches"), view.Batch.Rule)
		if action == "release" {
			line += "; " + rechecks(&view)
		}
		if _, err := fmt.Fprintln(p.stdout, line); err != nil {
			return err
		}
	}
	return nil
}
