package demo

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"postman/outbox"
)

// terminal writes what happens, for a person to follow; into a file or a pipe, lines that never change.
// Its methods may be called from any goroutine.
type terminal struct {
	tty    bool
	colour bool
	width  int // cells of a line

	mu sync.Mutex
	w  io.Writer
}

// widest is how long lines get, into a file too.
const widest = 160

// newTerminal uses colour on a terminal, unless NO_COLOR is set (no-color.org).
func newTerminal(w io.Writer, getenv func(string) string) *terminal {
	t := &terminal{w: w, width: widest}
	f, ok := w.(*os.File)
	if !ok {
		return t
	}
	columns, ok := columnsOf(f)
	if !ok {
		return t
	}
	t.tty, t.width = true, min(max(columns, 80), widest)
	t.colour = getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
	return t
}

// The colours, as SGR parameters (ECMA-48).
const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	amber = "33"
	blue  = "36"
)

func (t *terminal) paint(sgr, s string) string {
	if !t.colour {
		return s
	}
	return "\x1b[" + sgr + "m" + s + "\x1b[0m"
}

func (t *terminal) line(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// There is nobody to tell that the terminal is gone; the demo ends by a signal then.
	_, _ = fmt.Fprintf(t.w, format+"\n", args...)
}

// begin shows a step of the start that is under way, where a line can be replaced later.
func (t *terminal) begin(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tty {
		_, _ = fmt.Fprintf(t.w, "  %s %s", t.paint(dim, "·"), t.paint(dim, name+" …"))
	}
}

// end shows how a step ended.
func (t *terminal) end(name, detail string, took time.Duration, err error) {
	if t.tty {
		t.mu.Lock()
		_, _ = io.WriteString(t.w, "\r\x1b[2K")
		t.mu.Unlock()
	}
	if err != nil {
		t.line("  %s %s", t.paint(red, "✕"), name)
		return
	}
	t.line("  %s %s %s %s", t.paint(green, "✓"), fit(name, 10), fit(detail, 58), t.paint(dim, fmt.Sprintf("%9s", milliseconds(took))))
}

// The columns of the list of mails; the subject has what the line leaves.
const (
	timeCells = 8
	tookCells = 10
	ruleCells = 22
)

// toCells is for a whole address where there is room for it.
func (t *terminal) toCells() int {
	if t.width < 120 {
		return 18
	}
	return 27
}

func (t *terminal) subjectCells() int {
	return t.width - (2 + timeCells + 2 + tookCells + 2 + ruleCells + 2 + t.toCells() + 2)
}

// heads tells where to look, and begins the list of mails.
func (t *terminal) heads(w *world) {
	if w.url != "" {
		t.line("\n  Open   %s", t.paint(bold, w.url))
		command := cmp.Or(w.o.Command, "postman")
		t.line("  %s", t.paint(dim, fmt.Sprintf("Try    export DATABASE_URL='%s' STORE_URL=%s POSTMAN_RULES=%s POSTMAN_TEMPLATES=%s", string(w.settings.DatabaseURL), w.settings.StoreURL, w.settings.Rules, w.settings.Templates)))
		t.line("  %s", t.paint(dim, "       "+command+" outbox list"))
		t.line("  %s", t.paint(dim, "       "+command+" new my-first --table listings"))
		t.line("  %s", t.paint(dim, "Stop   Ctrl-C"))
	}
	t.line("\n  %s", t.paint(dim, fmt.Sprintf("%s  %*s  %s  %s  %s", fit("TIME", timeCells), tookCells, "TOOK", fit("RULE", ruleCells), fit("TO", t.toCells()), "SUBJECT")))
}

// cause writes what somebody did in the CRM.
func (t *terminal) cause(at time.Time, what string) {
	t.line("  %s  %s", t.paint(dim, at.Format(time.TimeOnly)), t.paint(dim, strings.TrimRight(fit(what, t.width-timeCells-4), " ")))
}

// entry writes a mail, or what postman decided in place of one.
func (t *terminal) entry(e *entry) {
	at, took, subject := e.Accepted, fmt.Sprintf("%*s", tookCells, milliseconds(e.Latency())), printable(e.Title())
	switch {
	case !e.arrived():
		at, took, subject = time.Now(), t.paint(stateColour(e.State), fmt.Sprintf("%*s", tookCells, e.State)), e.Reason
	case e.Again:
		subject = "(again) " + subject
	}
	t.line("  %s  %s  %s  %s  %s", t.paint(dim, at.Format(time.TimeOnly)), took, t.paint(blue, fit(e.Rule, ruleCells)), fit(e.To, t.toCells()),
		strings.TrimRight(fit(subject, t.subjectCells()), " "))
}

// stateColour tells what went wrong from what was meant to be.
func stateColour(s outbox.MessageState) string {
	switch s {
	case outbox.MessageDead, outbox.MessageFailed, outbox.MessageUncertain:
		return red
	case outbox.MessageQueued, outbox.MessageSending, outbox.MessageHeld, outbox.MessageNoAddress:
		return amber
	case outbox.MessageSent, outbox.MessageDigested, outbox.MessageSuppressed, outbox.MessageLimited, outbox.MessageRepeated,
		outbox.MessageReplaced, outbox.MessageExpired, outbox.MessageCancelled, outbox.MessageNotSent, outbox.MessageDiscarded:
	}
	return dim
}
