package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"postman/daemon"
)

type outboxCmd struct {
	List     listCmd     `cmd:"" default:"withargs" help:"List messages, and matches that are not expanded, newest first."`
	Show     showCmd     `cmd:"" help:"Show a message (17), a match (m17) or a batch that is held (b7)."`
	Retry    retryCmd    `cmd:"" help:"Queue dead, failed and uncertain messages and failed matches again."`
	Cancel   cancelCmd   `cmd:"" help:"Cancel pending matches and queued messages."`
	Release  releaseCmd  `cmd:"" help:"Let held matches and messages go."`
	Discard  discardCmd  `cmd:"" help:"Discard held matches and messages."`
	SendTest sendTestCmd `cmd:"" name:"send-test" help:"Send one test mail over a relay, and show the conversation."`
}

// selectFlags say what a list or an action is about.
type selectFlags struct {
	Rule    string   `help:"Only of this rule." placeholder:"NAME"`
	State   []string `help:"Only in these states." placeholder:"STATE"`
	Address string   `help:"Only to this address." placeholder:"ADDRESS"`
	Since   string   `help:"Only what came into the outbox since then: 2h, 7d, or a time." placeholder:"TIME"`
	Until   string   `help:"Only what came before." placeholder:"TIME"`
	Error   string   `help:"Only with this in the reason, or in the relay's last words." placeholder:"TEXT"`
	JSON    bool     `name:"json" help:"Print JSON (docs/cli.md)."`
}

// selection joins the flags and the ids: 17 is a message, m17 a match, b7 a batch that is held.
func (f *selectFlags) selection(ids []string) (daemon.Selection, error) {
	s := daemon.Selection{Rule: f.Rule, States: f.State, Address: f.Address, Since: f.Since, Until: f.Until, Error: f.Error}
	for _, id := range ids {
		digits := strings.TrimLeft(id, "mb")
		n, err := strconv.ParseInt(digits, 10, 64)
		to, known := map[string]*[]int64{"": &s.Messages, "m": &s.Matches, "b": &s.Batches}[strings.TrimSuffix(id, digits)]
		if err != nil || !known {
			return s, usageError{fmt.Errorf("%q is no id; a message's looks like 17, a match's like m17, that of a batch which is held like b7", id)}
		}
		*to = append(*to, n)
	}
	return s, nil
}

// ask sends a request to the operators' interface and returns its raw answer too.
func (p *program) ask(method, path string, in, out any) ([]byte, error) {
	c, err := p.flags.resolve()
	if err != nil {
		return nil, err
	}
	to, err := connect(p.ctx, c)
	if err != nil {
		return nil, err
	}
	text, err := to.call(p.ctx, method, path, in, out)
	if closeErr := to.close(); err == nil {
		err = closeErr
	}
	return text, err
}

type listCmd struct {
	selectFlags
	Limit  int    `help:"How many at most." default:"50"`
	Before int64  `help:"Only ids below this one, for paging."`
	Batch  string `help:"The matches of this batch (b7), which are held together, or were." placeholder:"ID"`
}

// Run prints the list.
func (l *listCmd) Run(p *program) error {
	var batch []string
	if l.Batch != "" {
		batch = append(batch, "b"+strings.TrimPrefix(l.Batch, "b"))
	}
	sel, err := l.selection(batch)
	if err != nil {
		return err
	}
	sel.Limit, sel.Before = l.Limit, l.Before
	var view daemon.ListView
	text, err := p.ask(http.MethodPost, "/v1/outbox/list", sel, &view)
	if err != nil {
		return err
	}
	if l.JSON {
		_, err = p.stdout.Write(text)
		return err
	}
	return printList(p.stdout, &view)
}

func printList(to io.Writer, view *daemon.ListView) error {
	var rows strings.Builder
	printBatches(&rows, view.Batches)
	if len(view.Messages) > 0 {
		rows.WriteString("MESSAGE\tCOMMITTED\tRULE\tTO\tSTATE\tSUBJECT (REASON)\n")
	}
	var silent string
	for i := range view.Messages {
		m := &view.Messages[i]
		reason := m.Reason
		if m.NotSent() && (silent == "" || silent == reason) { // the same for all of them: it is told once
			silent, reason = reason, ""
		}
		printMessage(&rows, m, reason)
	}
	printMatches(&rows, view.Matches)
	if rows.Len() == 0 {
		rows.WriteString("nothing\n")
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, rows.String()); err != nil {
		return err
	}
	if err := w.Flush(); err != nil || silent == "" {
		return err
	}
	_, err := fmt.Fprintf(to, "\nnot-sent: %s\n", silent)
	return err
}

func printMessage(w *strings.Builder, m *daemon.MessageView, reason string) {
	what := m.Subject
	if reason != "" {
		what = strings.TrimSpace(what + " (" + firstLine(reason) + ")")
	}
	fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%s\n", m.ID, when(m.Committed), m.Rule, addressOf(m), m.Standing(), what)
}

func addressOf(m *daemon.MessageView) string { return cmp.Or(m.Address, "(no address)") }

func printMatches(w *strings.Builder, matches []daemon.MatchView) {
	header := "MATCH\tCOMMITTED\tRULE\tCHANGE\tSTATE\tREASON\n"
	for i := range matches {
		m := &matches[i]
		w.WriteString(header)
		header = ""
		fmt.Fprintf(w, "m%d\t%s\t%s\t%s %s\t%s\t%s\n", m.ID, when(m.Committed), m.Rule, m.Op, m.Position, m.State, firstLine(m.Reason))
	}
}

func when(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.Local().Format(time.DateTime)
}

type showCmd struct {
	ID   string `arg:"" help:"A message's id (17), a match's (m17), or that of a batch which is held (b7)."`
	JSON bool   `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run prints all that is known of a message or a match.
func (s *showCmd) Run(p *program) error {
	sel, err := new(selectFlags).selection([]string{s.ID})
	if err != nil {
		return err
	}
	if len(sel.Batches) > 0 {
		return p.showBatch(sel.Batches[0], s.JSON)
	}
	path := "/v1/outbox/messages/" + s.ID
	if len(sel.Matches) > 0 {
		path = "/v1/outbox/matches/" + s.ID[1:]
	}
	var view daemon.ShowView
	text, err := p.ask(http.MethodGet, path, nil, &view)
	if err != nil {
		return fmt.Errorf("outbox show %s: %w", s.ID, err)
	}
	if s.JSON {
		_, err = p.stdout.Write(text)
		return err
	}
	var w strings.Builder
	printShow(&w, &view, sel.Messages)
	_, err = io.WriteString(p.stdout, w.String())
	return err
}

func printShow(w *strings.Builder, v *daemon.ShowView, asked []int64) {
	m := &v.Match
	fmt.Fprintf(w, "match m%d   rule %s (version %s), %s at %s, transaction %d, committed %s\n            %s%s\n",
		m.ID, m.Rule, m.Version, m.Op, m.Position, m.XID, when(m.Committed), m.State, because(m.Reason))
	for i := range v.Messages {
		g := &v.Messages[i]
		mark := " "
		if len(asked) > 0 && g.ID == asked[0] {
			mark = "▸"
		}
		fmt.Fprintf(w, "\n%s message %d   to %s   %s%s\n", mark, g.ID, addressOf(g), g.Standing(), because(g.Reason))
		if g.Replay != 0 {
			fmt.Fprintf(w, "    sent once more by replay %d\n", g.Replay)
		}
		fmt.Fprintf(w, "    subject     %s\n    message-id  %s\n    queued      %s   finished %s\n", g.Subject, g.MessageID, when(g.Created), when(g.Finished))
		if g.Reply != "" {
			fmt.Fprintf(w, "    relay said  %s\n", g.Reply)
		}
	}
	for _, o := range v.Replays {
		fmt.Fprintf(w, "\n  replay %d    ordered by %s, %s%s\n", o.ID, o.By, when(o.Begun), because(o.Why))
	}
	for i, a := range v.Attempts {
		fmt.Fprintf(w, "\n  attempt %d   %s via %s%s, %.1f ms: %s\n", i+1, when(a.Started), a.Relay, redirected(&a), a.Took, a.Text)
	}
	for _, b := range v.Bounces {
		fmt.Fprintf(w, "\n  came back   %s, %s of %s, as %s says: %s\n", when(b.At), bounceName(b.Kind.String()), firstOf(b.Address, "nobody known"), b.Source, b.Text)
	}
	if v.Mail != nil {
		printMail(w, v.Mail)
	}
}

// bounceName is a kind for people: not all that comes back has bounced.
func bounceName(kind string) string {
	if kind == "complaint" || kind == "unsubscribe" {
		return kind
	}
	return kind + " bounce"
}

// printMail prints a mail as its reader sees it, but for the HTML, which preview writes.
func printMail(w *strings.Builder, m *daemon.MailView) {
	fmt.Fprintf(w, "\n  the mail    from %s to %s\n", m.From, m.To)
	for _, line := range []struct{ name, value string }{{"copies", m.CC}, {"replies", m.ReplyTo}, {"files", strings.Join(m.Attached, ", ")}} {
		if line.value != "" {
			fmt.Fprintf(w, "    %-10s  %s\n", line.name, line.value)
		}
	}
	fmt.Fprintf(w, "    subject     %s\n\n", m.Subject)
	for text := range strings.Lines(m.Text) {
		w.WriteString("    │ " + text)
	}
	w.WriteString("\n")
}

func redirected(a *daemon.AttemptView) string {
	if a.Redirected == "" {
		return ""
	}
	return ", redirected to " + a.Redirected
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// actFlags are those of the commands that change something.
type actFlags struct {
	selectFlags
	IDs    []string `arg:"" optional:"" name:"id" help:"Messages (17), matches (m17), and batches that are held (b7)."`
	Reason string   `help:"Why; it is kept with what was moved." placeholder:"TEXT"`
	DryRun bool     `help:"Only show what would be moved."`
	Yes    bool     `short:"y" help:"Do not ask."`
}

// act does it, to at most so many; 0: to all.
func (a *actFlags) act(p *program, action, done string, limit int) error {
	sel, err := a.selection(a.IDs)
	if err != nil {
		return err
	}
	sel.Reason, sel.Limit = a.Reason, limit
	if a.DryRun || len(a.IDs) == 0 || len(sel.Batches) > 0 {
		if ok, err := a.agreed(p, action, &sel); err != nil || !ok {
			return err
		}
	}
	var moved daemon.ActedView
	text, err := p.ask(http.MethodPost, "/v1/outbox/"+action, sel, &moved)
	if err != nil {
		return err
	}
	if a.JSON {
		_, err = p.stdout.Write(text)
		return err
	}
	if len(sel.Batches) > 0 {
		_, err = fmt.Fprintf(p.stdout, "%s %s\n", done, number(moved.Matches, "match", "matches"))
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s %s and %s\n", done, number(moved.Messages, "message", "messages"), number(moved.Matches, "match", "matches"))
	return err
}

type (
	retryCmd   struct{ actFlags }
	cancelCmd  struct{ actFlags }
	releaseCmd struct {
		actFlags
		Limit int `help:"Only so many of a batch or a filter, the oldest first." placeholder:"N"`
	}
	discardCmd struct {
		actFlags
		Limit int `help:"Only so many of a batch or a filter, the oldest first." placeholder:"N"`
	}
)

// Run queues again what is dead, failed or uncertain.
func (a *retryCmd) Run(p *program) error { return a.act(p, "retry", "queued again:", 0) }

// Run cancels what waits.
func (a *cancelCmd) Run(p *program) error { return a.act(p, "cancel", "cancelled:", 0) }

// Run lets go what is held.
func (a *releaseCmd) Run(p *program) error { return a.act(p, "release", "released:", a.Limit) }

// Run discards what is held.
func (a *discardCmd) Run(p *program) error { return a.act(p, "discard", "discarded:", a.Limit) }
