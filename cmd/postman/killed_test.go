package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"postman/internal/pgcluster/pgtest"
	"postman/internal/smtptest"
	"postman/outbox"
)

const rowsTable = "create table rows (id int primary key, email text, x text)"

func rowsRule(name string) string {
	return "  - {name: " + name + ", on: {table: rows, ops: [insert]}, to: new.email, template: plain, hold_over: {transaction: 1000000, minute: 1000000}}\n"
}

// T5 of the acceptance list: a COPY, whose rows share LSNs, and a daemon that is killed in the middle of reading it, of storing what came of
// it and of making its mails. Each row comes to one match, and each of those that are mailed about to one message.
func TestCopyKilled(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{"whole": "", "in progress": "&logical_decoding_work_mem=64kB"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const n, mailed = 10_000, 2000
			s := newSite(t, "rules:\n  - {name: each, on: {table: rows, ops: [insert]}, to: new.email, template: plain, hold_over: {transaction: 1}}\n"+
				strings.Replace(rowsRule("mailed"), "to:", fmt.Sprintf("when: new.id < %d, to:", mailed), 1), nil, rowsTable)
			s.env = append(s.env, "DATABASE_URL="+s.url+settings)
			s.run("setup")
			conn := pgtest.Connect(t, s.url)
			if _, err := conn.CopyFrom(t.Context(), pgx.Identifier{"rows"}, []string{"id", "email", "x"}, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
				return []any{i, fmt.Sprintf("%d@example.com", i), strings.Repeat("x", 100)}, nil
			})); err != nil {
				t.Fatal(err)
			}
			for _, until := range []struct {
				what string
				so   func() bool
			}{
				{"it reads", func() bool { return true }},
				{"matches are stored", func() bool { return all(s.counts().Matches) > 0 }},
				{"a third is made", func() bool { return all(s.counts().Messages) > mailed/3 }},
			} {
				d := s.start("run")
				s.await("it reads", func() bool { return s.activePID(conn) != 0 })
				s.stepwise(d, until.what, until.so)
				d.mustKill()
				if got := all(s.counts().Messages); got >= mailed {
					t.Fatalf("when %s, all %d messages are made: it was killed too late", until.what, got)
				}
				s.await("the slot is free", func() bool { return s.activePID(conn) == 0 })
			}
			d := s.start("run")
			s.await("all is done", func() bool { return s.counts().Messages[outbox.MessageNotSent] >= mailed })
			d.mustKill()
			s.onceEach("mailed", mailed, 1)
			if got := s.counts().Matches; all(got) != n+mailed || got[outbox.MatchHeld] != n || got[outbox.MatchExpanded] != mailed {
				t.Errorf("there are the matches %v; want %d that are held and %d that are mailed about", got, n, mailed)
			}
		})
	}
}

// T17 of the acceptance list: the relay has taken a mail, and its 250 comes to nobody, since the connection or postman died. It is sent once
// more at most, as the same message, and not at all under `uncertain: hold`.
func TestTakenAndNotKnown(t *testing.T) {
	t.Parallel()
	for _, uncertain := range []string{"resend", "hold"} {
		want := map[string]int{"resend": 2, "hold": 1}[uncertain]
		state := map[string]outbox.MessageState{"resend": outbox.MessageSent, "hold": outbox.MessageUncertain}[uncertain]
		rules := "rules:\n  - {name: row, on: {table: rows, ops: [insert]}, to: new.email, template: plain, uncertain: " + uncertain + "}\n"
		check := func(t *testing.T, s *site, mails func() []smtptest.Mail) {
			t.Helper()
			s.await("the first has ended", func() bool {
				m := s.messages("row")
				return len(m) == 1 && !m[0].Finished.IsZero() || len(m) == 1 && m[0].State == state
			})
			for range 2 { // another process, and another mail: nothing more comes of the first
				d := s.start("run")
				pgtest.Exec(t, s.url, "insert into rows select coalesce(max(id), 0) + 1, 'b@example.com' from rows")
				before := s.counts().Messages[outbox.MessageSent]
				s.await("the next is sent", func() bool { return s.counts().Messages[outbox.MessageSent] > before })
				d.mustKill()
			}
			ids := make(map[string]bool)
			var came []smtptest.Mail
			for _, m := range mails() {
				if m.To[0] == "a@example.com" {
					came = append(came, m)
					ids[messageID(t, m)] = true
				}
			}
			if len(came) != want || len(ids) != 1 {
				t.Errorf("it came %d times, with %d Message-IDs; want %d times and one", len(came), len(ids), want)
			}
			for _, m := range s.messages("row") {
				if m.Address == "a@example.com" && (m.State != state || !ids[m.MessageID]) {
					t.Errorf("it is %s, as %s; the mails are %v", m.State, m.MessageID, ids)
				}
			}
		}
		t.Run("the connection dies, "+uncertain, func(t *testing.T) {
			t.Parallel()
			relay := smtptest.NewFake(smtptest.Script{Extensions: []string{"PIPELINING"}, Steps: map[string][]smtptest.Step{"DOT": {smtptest.Drop}}})
			addr, err := relay.Listen()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(relay.Close)
			s := newSite(t, rules, []string{"SMTP_URL=smtp://" + addr, "POSTMAN_MODE=live"}, rowsTable)
			d := s.start("run")
			s.await("it streams", func() bool { return s.counts().Messages != nil && s.status().Stream.Connected })
			pgtest.Exec(t, s.url, "insert into rows values (1, 'a@example.com')")
			s.await("it has come so often", func() bool { return len(relay.Mails()) >= want })
			s.await("the outcome is stored", func() bool { return s.counts().Messages[state] == 1 })
			d.mustKill()
			check(t, s, relay.Mails)
		})
		t.Run("postman dies, "+uncertain, func(t *testing.T) {
			t.Parallel()
			var victim atomic.Pointer[process]
			relay, err := smtptest.Start(smtptest.Options{Accepted: func(smtptest.Mail) {
				if p := victim.Swap(nil); p != nil {
					p.kill() // before it hears the 250
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(relay.Close)
			s := newSite(t, rules, []string{"SMTP_URL=smtp://" + relay.Addr(), "POSTMAN_MODE=live"}, rowsTable)
			d := s.start("run")
			s.await("it streams", func() bool { return s.counts().Messages != nil && s.status().Stream.Connected })
			victim.Store(d)
			pgtest.Exec(t, s.url, "insert into rows values (1, 'a@example.com')")
			select {
			case <-d.done:
			case <-t.Context().Done():
			}
			again := s.start("run")
			s.await("the outcome is stored", func() bool { return s.counts().Messages[state] == 1 })
			again.mustKill()
			check(t, s, relay.Mails)
		})
	}
}

// messageID is that of a mail.
func messageID(t *testing.T, m smtptest.Mail) string {
	t.Helper()
	for line := range strings.Lines(string(m.Data)) {
		if id, ok := strings.CutPrefix(line, "Message-ID: "); ok {
			return strings.TrimSpace(id)
		}
		if id, ok := strings.CutPrefix(line, "Message-Id: "); ok {
			return strings.TrimSpace(id)
		}
	}
	t.Errorf("no Message-ID in %s", m.Data)
	return ""
}

// A replay is killed in the middle, twice, and ordered again: by a command that has the store to itself, and beside a daemon, where the command
// dies or the daemon does. Each match comes once, and each message that is sent once more comes once more.
func TestReplayKilled(t *testing.T) {
	t.Parallel()
	const n = 500 // of many kilobytes each: a replay stores some tens of them at once
	none := "rules:\n  - {name: none, on: {table: rows, ops: [insert]}, when: 'false', to: new.email, template: plain}\n"
	relay, err := smtptest.Start(smtptest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	s := newSite(t, none, []string{"SMTP_URL=smtp://" + relay.Addr(), "POSTMAN_MODE=live"}, rowsTable)
	d := s.start("run")
	s.await("it streams", func() bool { return s.counts().Messages != nil && s.status().Stream.Connected })
	pgtest.Exec(t, s.url, fmt.Sprintf("do $$ begin for i in 0..99 loop insert into rows select n, n || '@example.com', repeat('x', 80000) from generate_series(i * %d, (i + 1) * %[1]d - 1) n; commit; end loop; end $$", n/100))
	var end string
	if err := pgtest.Connect(t, s.url).QueryRow(t.Context(), "select pg_current_wal_lsn()::text").Scan(&end); err != nil {
		t.Fatal(err)
	}
	s.await("it is in the journal", func() bool { return s.covers(end) })
	from := s.status().Sources[0].Journal.Oldest
	d.mustKill()

	replay := func(flags ...string) []string { return append([]string{"replay", "--from", from, "--yes"}, flags...) }
	// stored is how much a replay has stored so far, of this or of one before.
	stored := func(resend bool) int {
		c := s.counts()
		if resend {
			return all(c.Messages)
		}
		return all(c.Matches)
	}
	// killed orders a replay, beside a daemon if there is one, and kills the command, or another victim, while what comes of it is stored.
	killed := func(beside, victim *process, flags ...string) {
		t.Helper()
		resend := slices.Contains(flags, "--resend")
		before, orders := stored(resend), s.replays()
		p := s.start(replay(flags...)...)
		s.await("it is begun", func() bool {
			if p.ended() && strings.Contains(p.said.String(), "another replay is being carried out") { // whose command was killed just now
				p = s.start(replay(flags...)...)
			}
			return s.replays() > orders
		})
		stores := cmp.Or(beside, p)
		s.stepwise(stores, "some is stored", func() bool { return stored(resend) > before })
		if got := stored(resend); got%n == 0 {
			t.Fatalf("%d are stored: it was stopped too late", got)
		}
		cmp.Or(victim, p).mustKill()
		stores.signal(syscall.SIGCONT)
		<-p.done
		if p.ProcessState.Success() {
			t.Errorf("the command says that all is well: %s", p.said)
		}
	}
	done := func(rule string, times int) {
		t.Helper()
		s.await("all messages have ended", func() bool {
			c := s.counts()
			return c.Messages[outbox.MessageSent] == all(c.Messages) && c.Matches[outbox.MatchExpanded] == all(c.Matches)
		})
		s.onceEach(rule, n, times)
	}

	// Nobody runs.
	s.write("rules.yaml", none+rowsRule("alone"))
	for range 2 {
		killed(nil, nil, "--rule", "alone")
	}
	s.run(replay("--rule", "alone")...)
	if text := s.run(replay("--rule", "alone")...); !strings.Contains(text, "nothing to queue") {
		t.Errorf("another time it said %s", text)
	}
	d = s.start("run")
	done("alone", 1)
	d.mustKill()
	resend := []string{"--rule", "alone", "--resend", "--why", "a test"}
	killed(nil, nil, resend...)
	if text := s.run(replay(resend...)...); !strings.Contains(text, "goes on with replay") {
		t.Errorf("it did not go on: %s", text)
	}
	s.write("rules.yaml", none+rowsRule("alone")+rowsRule("beside"))
	d = s.start("run")
	done("alone", 2)

	// Beside a daemon.
	killed(d, nil, "--rule", "beside")
	killed(d, d, "--rule", "beside")
	d = s.start("run")
	s.await("it streams", func() bool { return s.status().Stream.Connected })
	s.run(replay("--rule", "beside")...)
	done("beside", 1)
	killed(d, d, "--rule", "beside", "--resend", "--why", "a test")
	s.start("run")
	s.await("it streams", func() bool { return s.status().Stream.Connected })
	s.run(replay("--rule", "beside", "--resend", "--why", "a test")...)
	done("beside", 2)
	s.onceEach("alone", n, 2)
	if got := all(s.counts().Matches); got != 2*n {
		t.Errorf("there are %d matches; want %d", got, 2*n)
	}
}

// A batch that is held is released, and the daemon is killed in the middle of that: the order is durable, the next daemon goes on with it, and
// each mail is made once.
func TestReleaseKilled(t *testing.T) {
	t.Parallel()
	const n = 5000
	s := newSite(t, "rules:\n  - {name: each, on: {table: rows, ops: [insert]}, to: new.email, template: plain}\n", nil, rowsTable)
	d := s.start("run")
	s.await("it streams", func() bool { return s.counts().Messages != nil && s.status().Stream.Connected })
	pgtest.Exec(t, s.url, fmt.Sprintf("insert into rows select n, n || '@example.com' from generate_series(1, %d) n", n))
	s.await("it is held", func() bool { return s.counts().Matches[outbox.MatchHeld] == n })
	if text := s.run("outbox", "list", "--limit", "5"); strings.Count(text, "\n") != 2 || !strings.Contains(text, "b1 ") {
		t.Errorf("listed as\n%s", text)
	}
	if text := s.run("outbox", "show", "b1"); !strings.Contains(text, "to          5000@example.com") || !strings.Contains(text, "postman outbox release b1") {
		t.Errorf("shown as\n%s", text)
	}
	command := s.start("outbox", "release", "b1", "--reason", "it is right", "--yes")
	s.stepwise(d, "some is released", func() bool { return s.counts().Matches[outbox.MatchHeld] < n })
	if s.counts().Matches[outbox.MatchHeld] == 0 {
		t.Fatal("all is released: it was killed too late")
	}
	d.mustKill()
	<-command.done
	if !strings.Contains(command.said.String(), "b1: 5,000 matches of rule each; each row's condition") || command.ProcessState.Success() {
		t.Errorf("the command said %s", command.said)
	}
	d = s.start("run")
	s.await("all is done", func() bool { return s.counts().Messages[outbox.MessageNotSent] == n })
	s.onceEach("each", n, 1)
	if got := s.counts().Matches; got[outbox.MatchExpanded] != n || all(got) != n {
		t.Errorf("there are the matches %v", got)
	}
	d.mustKill()
}
