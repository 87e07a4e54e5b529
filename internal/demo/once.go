package demo

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"postman/daemon"
	"postman/internal/smtptest"
	"postman/outbox"
)

// The scenario's patience.
const (
	playFor  = 30 * time.Second // for all of it
	sceneFor = 4 * time.Second  // for what one scene brings, before the next one begins
	quietFor = 2 * time.Second  // without any news at the end: what should not come has had its time
)

//go:embed once.yaml
var onceRules []byte

// withOnce copies the rules into a folder, and the scenario's own beside them.
func withOnce(rules, dir string) (string, error) {
	info, err := os.Stat(rules)
	switch {
	case err != nil:
	case info.IsDir():
		err = os.CopyFS(dir, os.DirFS(rules))
	default:
		_, err = copied(os.DirFS(filepath.Dir(rules)), filepath.Base(rules), dir)
	}
	if err != nil {
		return "", fmt.Errorf("reading the rules: %w", err)
	}
	return dir, os.WriteFile(filepath.Join(dir, "demo-once.yaml"), onceRules, 0o600)
}

// putOff is the relay of somebody whom no mail reaches: it is to come again later, every time.
func putOff(e smtptest.Event) error {
	if e.Stage == smtptest.To && e.Arg == stale {
		return &smtp.SMTPError{Code: 450, EnhancedCode: smtp.EnhancedCode{4, 2, 1}, Message: "The mailbox is busy, please come again later"}
	}
	return nil
}

// once plays the scenario and says what came of it.
func (w *world) once(ctx context.Context) error {
	want, err := w.playAll(ctx)
	if err != nil {
		return err
	}
	if err := w.quiet(ctx); err != nil {
		return err
	}
	o := check(scenario, want, w.inbox.all())
	matches, err := w.matches(ctx)
	if err != nil {
		return err
	}
	o.checkMatches(scenario, matches)
	w.term.report(&o, figure(w.inbox.all()))
	if len(o.problems) == 0 {
		return nil
	}
	select {
	case err := <-w.daemon.Failed():
		return errors.Join(ErrScenario, err)
	default:
		return ErrScenario
	}
}

// matches counts those that made no messages and wait for nothing, as the commands are told.
func (w *world) matches(ctx context.Context) (map[ended]int, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return daemon.DialSocket(ctx, w.settings.StorePath())
	}}}
	asked := fmt.Sprintf(`{"states": [%q, %q, %q, %q], "limit": 1000}`, outbox.MatchHeld, outbox.MatchMuted, outbox.MatchFailed, outbox.MatchNobody)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://postman/v1/outbox/list", strings.NewReader(asked))
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("asking for the matches: %w", err)
	}
	defer response.Body.Close()
	var list daemon.ListView
	if err := json.NewDecoder(response.Body).Decode(&list); err != nil {
		return nil, fmt.Errorf("asking for the matches: %w", err)
	}
	found := make(map[ended]int)
	for _, m := range list.Matches {
		found[ended{m.Rule, m.State}]++
	}
	for i := range list.Batches {
		found[ended{list.Batches[i].Rule, outbox.MatchHeld}] += list.Batches[i].Held
	}
	return found, nil
}

// playAll has one scene happen after the other, and waits for what they bring.
func (w *world) playAll(ctx context.Context) (want []awaited, err error) {
	ctx, cancel := context.WithTimeout(ctx, playFor)
	defer cancel()
	for i := range scenario {
		s := &scenario[i]
		more, err := w.play(ctx, s)
		if err != nil {
			return nil, fmt.Errorf("playing the scenario (%s): %w", s.does, err)
		}
		want = append(want, more...)
		if !s.patient {
			w.await(ctx, sceneFor, []scene{*s}, more)
		}
	}
	w.await(ctx, playFor, scenario, want)
	return want, nil
}

// play has a scene happen, and returns the mails to wait for.
func (w *world) play(ctx context.Context, s *scene) ([]awaited, error) {
	tx, err := w.crm.Begin(ctx)
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	for _, sql := range s.sql {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return nil, err
		}
	}
	w.term.cause(time.Now(), s.does)
	if s.rollback {
		return nil, tx.Rollback(ctx)
	}
	if err := tx.Commit(ctx); err != nil {
		return nil, err
	}
	return s.await(func(query string) (answer string, err error) {
		return answer, w.crm.QueryRow(ctx, query).Scan(&answer)
	})
}

// await waits until nothing of what the scenes bring is missing, or its time is over.
func (w *world) await(ctx context.Context, limit time.Duration, scenes []scene, want []awaited) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for seq := 0; ; {
		o := check(scenes, want, w.inbox.all())
		if o.complete() {
			return
		}
		var err error
		if _, seq, err = w.inbox.after(ctx, seq); err != nil {
			return // what is missing, the report tells
		}
	}
}

// quiet waits until nothing new comes.
func (w *world) quiet(ctx context.Context) error {
	for seq := 0; ; {
		silence, cancel := context.WithTimeout(ctx, quietFor)
		_, next, err := w.inbox.after(silence, seq)
		cancel()
		if err != nil {
			return ctx.Err()
		}
		seq = next
	}
}

// report writes what came of the scenario: the rules, then everything that is wrong.
func (t *terminal) report(o *outcome, f figures) {
	t.line("\n  %s", t.paint(dim, "  "+fit("RULE", 24)+"EXPECTED  ARRIVED  NOT SENT"))
	for _, r := range o.rules {
		mark := t.paint(green, "✓")
		if r.expected != r.arrived || slices.ContainsFunc(o.problems, func(p problem) bool { return p.rule == r.rule }) {
			mark = t.paint(red, "✕")
		}
		line := fmt.Sprintf("%s%8d %8d  %s", fit(r.rule, 24), r.expected, r.arrived, strings.Join(r.unsent, ", "))
		t.line("  %s %s", mark, strings.TrimRight(line, " "))
	}
	for i, p := range o.problems {
		if i == 0 {
			t.line("")
		}
		t.line("  %s  %s → %s: %s", t.paint(red, fit(p.kind, 7)), printable(p.rule), printable(p.to), printable(p.what))
	}
	t.line("\n  %d mails; commit to accepted %s median, %s at most", f.Mails, t.paint(bold, milliseconds(f.Median)), t.paint(bold, milliseconds(f.Max)))
	if len(o.problems) == 0 {
		t.line("  %s\n", t.paint(green, "exactly the mails that were expected, and no other"))
	}
}
