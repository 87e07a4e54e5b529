package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"strings"

	"postman/daemon"
)

type replayCmd struct {
	From   string   `help:"Where to begin: an LSN, a time (2026-11-22 14:00), or how long ago it was (2h, 7d)." placeholder:"LSN|TIME"`
	Gap    int64    `help:"What a gap has, by its number in the status: its rule, from its beginning to its end." placeholder:"N"`
	GoOn   int64    `help:"What a replay that was broken off has left undone, by its number." placeholder:"N"`
	To     string   `help:"Where to end, likewise (default: the end of what is stored)." placeholder:"LSN|TIME"`
	Rule   []string `help:"Only this rule; again for more (default: all)." placeholder:"NAME"`
	DryRun bool     `help:"Show the plan, with samples, and do nothing."`
	Muted  bool     `help:"Send what its transaction muted, too."`
	Resend bool     `help:"Send once more what was sent already; needs --why."`
	Again  bool     `help:"With --resend: also what was sent once more before."`
	Why    string   `help:"Why; it is kept with the replay." placeholder:"TEXT"`
	Yes    bool     `short:"y" help:"Do not ask."`
	JSON   bool     `name:"json" help:"Print JSON (docs/replay.md)."`
}

// Run shows what a replay would do, asks, and does it.
func (r *replayCmd) Run(p *program) error {
	if r.From == "" && r.Gap == 0 && r.GoOn == 0 {
		return usageError{errors.New("name where to begin: postman replay --from 2h; an LSN or a time will do as well, or the number of a gap: --gap 5 (docs/replay.md)")}
	}
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	go func() {
		select {
		case <-p.signals:
			cancel()
		case <-ctx.Done():
		}
	}()
	to, err := connect(ctx, c)
	if err != nil {
		return err
	}
	bar := newBar(p.stderr)
	err = r.with(ctx, p, to, bar)
	if ctx.Err() != nil {
		err = errors.New("broken off; " + bar.goesOn())
	}
	return errors.Join(err, to.close())
}

func (r *replayCmd) with(ctx context.Context, p *program, to *client, bar *bar) error {
	q := daemon.ReplayRequest{From: r.From, Gap: r.Gap, GoOn: r.GoOn, To: r.To, Rules: r.Rule, Muted: r.Muted, Resend: r.Resend, Again: r.Again, By: whoami(), Why: r.Why}
	plan, err := to.replay(ctx, "/v1/replay/plan", q, bar)
	if err != nil {
		return err
	}
	v := plan.Plan
	if !r.JSON {
		if _, err := io.WriteString(p.stdout, planText(painter(p.stdout), v, r.DryRun)); err != nil {
			return err
		}
	}
	todo := v.Queue+v.Resend+expected(v) > 0 || len(v.Mends)+len(v.Stays) > 0
	switch {
	case r.DryRun || !todo:
		return r.print(p, replayed{Plan: v})
	case !r.Yes && !p.asks(r.JSON):
		if err := r.print(p, replayed{Plan: v}); err != nil {
			return err
		}
		return usageError{errors.New("nothing was done: there is nobody to ask\n  → with --yes it is done without asking; with --dry-run the plan is all that is wanted")}
	case !r.Yes:
		if ok, err := p.confirm(ctx, question(v)); err != nil || !ok {
			return err
		}
	}
	// What the plan resolved, and no other rules than it was made with.
	q.Resolved, q.Versions = []daemon.Moment{v.From, v.To}, v.Versions
	done, err := to.replay(ctx, "/v1/replay", q, bar)
	if err != nil {
		return err
	}
	if !r.JSON {
		_, err = io.WriteString(p.stdout, doneText(painter(p.stdout), done.Done))
		return err
	}
	return r.print(p, replayed{Plan: v, Done: done.Done})
}

// expected is how many matches would be noted although no mail comes of them.
func expected(v *daemon.ReplayPlan) (n int) {
	for i := range v.Rules {
		n += v.Rules[i].Late + v.Rules[i].Failed
	}
	return n
}

// replayed is what --json prints.
type replayed struct {
	Plan *daemon.ReplayPlan `json:"plan"`
	Done *daemon.ReplayDone `json:"done,omitempty"`
}

func (r *replayCmd) print(p *program, v replayed) error {
	if !r.JSON {
		return nil
	}
	e := json.NewEncoder(p.stdout)
	e.SetEscapeHTML(false) // people read it, too
	return e.Encode(v)
}

func question(v *daemon.ReplayPlan) string {
	var parts []string
	if v.Queue > 0 {
		parts = append(parts, "queue the mails of "+number(v.Queue, "match", "matches"))
	}
	if v.Resend > 0 {
		parts = append(parts, "send "+number(v.Resend, "message", "messages")+" once more")
	}
	if len(v.Mends) > 0 {
		parts = append(parts, "note that "+gapNumbers(v.Mends)+" is made up for")
	}
	if len(parts) == 0 {
		parts = append(parts, "note that")
	}
	return strings.Join(parts, " and ")
}

// whoami is who runs the command, for the record.
func whoami() string {
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

// asks says whether there is somebody who could be asked.
func (p *program) asks(json bool) bool { return !json && onTerminal(os.Stdin) && onTerminal(p.stdout) }

// confirm asks, and takes nothing but a yes for one.
func (p *program) confirm(ctx context.Context, what string) (bool, error) {
	if _, err := fmt.Fprintf(p.stdout, "\n%s? [y/N] ", strings.ToUpper(what[:1])+what[1:]); err != nil {
		return false, err
	}
	answered := make(chan string, 1)
	go func() { // it waits for a line for as long as the process lives, and longer than that nobody cares
		line, _ := bufio.NewReader(os.Stdin).ReadString('\n')
		answered <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case line := <-answered:
		if line == "y" || line == "yes" {
			return true, nil
		}
		_, err := fmt.Fprintln(p.stdout, "nothing was done")
		return false, err
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// replay sends an order and shows how far it is, until the answer has come.
func (c *client) replay(ctx context.Context, path string, q daemon.ReplayRequest, bar *bar) (line daemon.ReplayLine, err error) {
	defer bar.clear()
	err = c.stream(ctx, http.MethodPost, path, q, func(text []byte) error {
		line = daemon.ReplayLine{}
		if err := json.Unmarshal(text, &line); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		switch {
		case line.Error != "" && line.Usage:
			return usageError{errors.New(line.Error)}
		case line.Error != "":
			return errors.New(line.Error)
		case line.Progress != nil:
			bar.show(line.Progress)
		}
		return nil
	})
	if err == nil && line.Plan == nil && line.Done == nil {
		err = errors.New("the running postman ended before the answer was whole: " + bar.goesOn())
	}
	return line, err
}

// bar shows progress on a terminal, and nothing elsewhere.
type bar struct {
	to     io.Writer
	shown  bool
	replay int64 // that has begun; 0: none
}

// goesOn says how to go on with what was broken off.
func (b *bar) goesOn() string {
	if b.replay == 0 {
		return "nothing was done"
	}
	return fmt.Sprintf("what is queued stays queued, and this goes on with the rest: postman replay --go-on %d", b.replay)
}

func newBar(to io.Writer) *bar {
	if !onTerminal(to) {
		return &bar{}
	}
	return &bar{to: to}
}

func (b *bar) show(p *daemon.Progress) {
	b.replay = cmp.Or(p.Replay, b.replay)
	if b.to == nil {
		return
	}
	b.shown = true
	fmt.Fprintf(b.to, "\r\x1b[K%s", barText(p)) //nolint:errcheck // what it is for is told again at the end
}

func (b *bar) clear() {
	if b.shown {
		fmt.Fprint(b.to, "\r\x1b[K") //nolint:errcheck // likewise
	}
	b.shown = false
}

func barText(p *daemon.Progress) string {
	const width = 24
	full := min(width, int(p.Done*width))
	return fmt.Sprintf("%-10s %s%s %3.0f %%  %s changes, %s matches", p.Phase, strings.Repeat("█", full), strings.Repeat("░", width-full), 100*p.Done, daemon.Grouped(p.Changes), daemon.Grouped(p.Matches))
}
