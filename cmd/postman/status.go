package main

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"postman/daemon"
)

type statusCmd struct {
	All  bool `help:"Show gaps that were made up for or accepted, too."`
	JSON bool `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run prints the state of the daemon, or of the store when none runs. It exits 1 when a running daemon is not healthy, or none could stream.
func (s statusCmd) Run(p *program) error {
	c, err := p.flags.resolve()
	if err != nil {
		return err
	}
	to, err := connect(p.ctx, c)
	if err != nil {
		return err
	}
	defer to.close() //nolint:errcheck // nothing was written
	var status daemon.Status
	text, err := to.call(p.ctx, http.MethodGet, "/v1/status", nil, &status)
	if err != nil {
		return err
	}
	if !s.JSON {
		var w strings.Builder
		printStatus(&w, &status, s.All)
		text = []byte(w.String())
	}
	_, err = p.stdout.Write(text)
	if err == nil && status.Running && !status.Healthy {
		return fmt.Errorf("postman is not healthy: %s", strings.Join(status.Trouble, "; "))
	}
	if i := slices.IndexFunc(status.Gaps, func(g daemon.GapStatus) bool { return g.Endless() }); err == nil && i >= 0 {
		return fmt.Errorf("nothing is streamed: gap %d waits for a decision\n  → %s", status.Gaps[i].ID, daemon.AcceptGapAdvice)
	}
	return err
}

func printStatus(w *strings.Builder, s *daemon.Status, all bool) {
	switch {
	case !s.Running:
		fmt.Fprintf(w, "postman %s   not running; this is what the store tells\n", s.Version)
	case s.Starting:
		fmt.Fprintf(w, "postman %s   STARTING, mode %s, for %s\n", s.Version, mode(s.Mode), since(s.Started))
	case s.Healthy && len(s.Trouble) > 0:
		fmt.Fprintf(w, "postman %s   WITH TROUBLE, mode %s, up %s\n", s.Version, mode(s.Mode), since(s.Started))
	case s.Healthy:
		fmt.Fprintf(w, "postman %s   healthy, mode %s, up %s\n", s.Version, mode(s.Mode), since(s.Started))
	default:
		fmt.Fprintf(w, "postman %s   NOT HEALTHY, mode %s, up %s\n", s.Version, mode(s.Mode), since(s.Started))
	}
	for _, t := range s.Trouble {
		fmt.Fprintf(w, "  ! %s\n", strings.ReplaceAll(t, "\n", "\n  "))
	}
	for _, t := range s.Warnings {
		fmt.Fprintf(w, "  · %s\n", strings.ReplaceAll(strings.TrimSpace(t), "\n", "\n    "))
	}
	if s.Running && !s.Starting {
		printRunning(w, s)
	}
	printSlot(w, s.Slot)
	for _, src := range s.Sources {
		fmt.Fprintf(w, "\ndatabase %s   slot %s, epoch %d, covered up to %s%s\n", src.Database, src.Slot, src.Epoch, src.Checkpoint, armed(src.Armed))
		if j := &src.Journal; j.Oldest != "" {
			epoch := ""
			if j.Epoch != src.Epoch {
				epoch = fmt.Sprintf(" of epoch %d", j.Epoch)
			}
			fmt.Fprintf(w, "journal    from %s%s (%s) to %s, %s: what a replay can read\n", j.Oldest, epoch, j.From.Local().Format(time.DateTime), j.Newest, daemon.Bytes(j.Bytes))
		}
	}
	printCounts(w, s)
	printHeld(w, s.Held)
	printGaps(w, s.Gaps, all)
}

func mode(m string) string {
	if m == "" {
		return "none (nothing is sent)"
	}
	return m
}

func armed(hosts string) string {
	if hosts == "" {
		return ""
	}
	return ", live for " + hosts
}

func since(t time.Time) string { return time.Since(t).Round(time.Second).String() }

func printRunning(w *strings.Builder, s *daemon.Status) {
	t := &s.Stream
	fmt.Fprintf(w, "\nstream     server %s  received %s  stored %s  confirmed %s  (%s behind)\n", t.ServerEnd, t.Received, t.Stored, t.Confirmed, daemon.Bytes(t.Behind))
	printAside(w, t)
	if len(t.Untaken) > 0 {
		var names []string
		for _, name := range slices.Sorted(maps.Keys(t.Untaken)) {
			names = append(names, fmt.Sprintf("%s (%d)", name, t.Untaken[name]))
		}
		fmt.Fprintf(w, "  ! messages no rule takes: %s\n", strings.Join(names, ", "))
	}
	printRules(w, &s.Rules)
	if s.Relay.Address != "" {
		for i := range s.Relays {
			r := &s.Relays[i]
			fmt.Fprintf(w, "%-10s %s  %s\n", cmp.Or(r.Name, "relay"), r.Address, relayState(r))
		}
		fmt.Fprintf(w, "in hand    %s, %s\n", number(s.Relay.Messages, "message", "messages"), number(s.Relay.Matches, "match", "matches"))
	}
}

// printSlot tells what the slot holds back, how far that may go, and when it will have gone too far.
func printSlot(w *strings.Builder, s *daemon.SlotStatus) {
	if s == nil {
		return
	}
	if s.WALStatus == "" { // nobody answered
		fmt.Fprintf(w, "slot       ! %s\n", s.Note)
		return
	}
	fmt.Fprintf(w, "slot       %s, holds back %s of the log", s.WALStatus, daemon.Bytes(s.Retained))
	switch {
	case s.Safe != nil:
		fmt.Fprintf(w, ", %s to go", daemon.Bytes(*s.Safe))
	case s.Limit == 0:
		fmt.Fprint(w, ", without a limit (max_slot_wal_keep_size)")
	}
	if s.Rate >= 1 {
		fmt.Fprintf(w, ", at %s/s", daemon.Bytes(int64(s.Rate)))
	}
	if !s.Inactive.IsZero() {
		fmt.Fprintf(w, "; nobody reads it since %s", s.Inactive.Local().Format(time.DateTime))
	}
	fmt.Fprintln(w)
	if s.Level != daemon.SlotOK {
		fmt.Fprintf(w, "  ! %s\n", s.Note)
	}
}

// printAside tells what the stream brought and no rule was tried on.
func printAside(w *strings.Builder, t *daemon.StreamStatus) {
	for _, origin := range slices.Sorted(maps.Keys(t.Ignored)) {
		fmt.Fprintf(w, "  - %s of the replication origin %s ignored\n", number(int(t.Ignored[origin]), "transaction", "transactions"), origin)
	}
	if t.Unread > 0 {
		fmt.Fprintf(w, "  ! %s could not be read and put aside: please report it\n", number(int(t.Unread), "change", "changes"))
	}
}

func printRules(w *strings.Builder, r *daemon.RulesStatus) {
	from := "decide from the next commit on"
	if r.From != "" {
		from = "decide from " + r.From
	}
	fmt.Fprintf(w, "rules      %d live since %s, %s; %s\n", r.Rules, r.Loaded.Local().Format(time.DateTime), from, number(r.Templates, "template", "templates"))
	const most = 10
	for i, n := range r.New {
		if i == most {
			fmt.Fprintf(w, "  + and %d more\n", len(r.New)-most)
			break
		}
		fmt.Fprintf(w, "  + new or changed: %s, from %s\n", n.Rule, cmp.Or(n.From, "the next commit on"))
	}
	for _, b := range r.Broken {
		fmt.Fprintf(w, "  ! broken: %s, from %s: %s\n", b.Rule, b.From, firstLine(b.Reason))
		if b.Mend != "" {
			fmt.Fprintf(w, "    → mend the rule or the table, then %s\n", b.Mend)
		}
	}
	if r.Mismatches > 0 {
		fmt.Fprintf(w, "  ! the index of the rules was wrong in %d samples, so that others may have been missed: please report it\n", r.Mismatches)
	}
}

func relayState(r *daemon.Relay) string {
	busy := fmt.Sprintf("%s of %d, %d under way", number(r.Connections, "connection", "connections"), r.Most, r.InFlight)
	if r.Takes < r.Most {
		busy += fmt.Sprintf(", is given %d for now", r.Takes)
	}
	if r.Rate.Mails > 0 {
		busy += ", at most " + r.Rate.String()
	}
	if r.Quota > 0 {
		busy += fmt.Sprintf(", %d of %d mails in %s (%d %%)", r.Used, r.Quota, r.Month, 100*r.Used/r.Quota)
	}
	refused := ""
	if r.Refused > 0 {
		refused = fmt.Sprintf("; refused the last %s: %s", number(r.Refused, "mail", "mails"), r.Refusal)
	}
	switch {
	case r.Up():
		return string(r.State) + ", " + busy + refused
	case r.Probing():
		return "can be connected to again, and the next mail shows whether it takes them; " + busy + refused
	}
	return strings.ToUpper(string(r.State)) + " since " + r.Since.Local().Format(time.TimeOnly) + ": " + r.LastError
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func printCounts(w *strings.Builder, s *daemon.Status) {
	fmt.Fprintf(w, "\nmatches    %s\n", counts(s.Outbox.Matches))
	fmt.Fprintf(w, "messages   %s\n", counts(s.Outbox.Messages))
	if d := s.Dead; d != nil {
		fmt.Fprintf(w, "  ! %s in the last 24 hours, the latest of rule %s at %s: %s\n    → postman outbox list --state dead\n",
			number(d.Messages, "mail died", "mails died"), d.Rule, d.Last.Local().Format(time.DateTime), firstLine(d.Reason))
	}
}

// counts prints the states that occur, in the order of their life.
func counts[S interface {
	~uint8
	String() string
}](by map[S]int,
) string {
	var parts []string
	for i := range 32 {
		if n := by[S(i)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, S(i)))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}
