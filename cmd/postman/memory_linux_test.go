package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"postman/internal/pgcluster/pgtest"
	"postman/internal/smtptest"
	"postman/outbox"
)

// peak is the most memory that a process had in use so far (VmHWM of proc(5)), in bytes.
func (p *process) peak() (bytes int64) {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, line, found := strings.Cut(string(text), "VmHWM:")
	if _, err := fmt.Sscanf(line, "%d kB", &bytes); !found || err != nil {
		p.t.Fatalf("%v in %s", err, text)
	}
	return bytes << 10
}

// mostMemory is what postman may have in use, whatever comes to it.
const mostMemory = 128 << 20

func (p *process) lean() {
	p.t.Helper()
	peak := p.peak()
	p.t.Logf("at most %d MiB in use", peak>>20)
	if peak > mostMemory {
		p.t.Errorf("%d MiB were in use; want %d at most", peak>>20, mostMemory>>20)
	}
}

// T3 of the acceptance list: a transaction of a million rows while the store hangs, again and again for longer than wal_sender_timeout. The
// connection stays, what is in memory is bounded, and each match is there.
func TestSlowStore(t *testing.T) {
	t.Parallel()
	const n, every = 1_000_000, 500
	s := newSite(t, strings.Replace("rules:\n"+rowsRule("some"), "to:", fmt.Sprintf("when: new.id %% %d == 0, to:", every), 1), nil, "create table rows (id int, email text, x text)")
	s.env = append(s.env, "DATABASE_URL="+s.url+"&wal_sender_timeout=2000&logical_decoding_work_mem=1MB")
	d := s.start("run")
	conn := pgtest.Connect(t, s.url)
	s.await("it streams", func() bool { return s.counts().Messages != nil && s.status().Stream.Connected })
	reader := s.activePID(conn)
	committed := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), fmt.Sprintf("insert into rows select n, n || '@example.com', md5(n::text) from generate_series(1, %d) n", n))
		committed <- err
	}()
	// Until what may wait in memory is full, the stream is read, and the server hears of us without being told.
	asks := pgtest.Connect(t, s.url)
	sent := func() (lsn string) {
		if err := asks.QueryRow(t.Context(), "select coalesce(max(sent_lsn)::text, '') from pg_stat_replication where pid = $1", reader).Scan(&lsn); err != nil {
			t.Fatal(err)
		}
		return lsn
	}
	before := sent()
	for range 2 {
		free := s.block()
		last, since := before, time.Now()
		s.await("nothing is read for longer than wal_sender_timeout", func() bool {
			if now := sent(); now != last {
				last, since = now, time.Now()
			}
			return last != before && time.Since(since) > 2500*time.Millisecond
		})
		free()
	}
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	s.await("all is done", func() bool { return s.counts().Messages[outbox.MessageNotSent] >= n/every })
	if now := s.activePID(pgtest.Connect(t, s.url)); now != reader {
		t.Errorf("the slot was read by process %d and is read by %d now", reader, now)
	}
	if v := s.status(); !v.Healthy || v.Stream.LastError != "" {
		t.Errorf("healthy %v, stream %+v", v.Healthy, v.Stream)
	}
	d.lean()
	s.onceEach("some", n/every, 1)
}

// T16 of the acceptance list: at the start there is more to read than the memory that is wanted, and then more to send.
func TestBacklogAtTheStart(t *testing.T) {
	t.Parallel()
	const transactions, rows, bytes = 150, 100, 20_000 // 300 MB, of which a third matches
	relay, err := smtptest.Start(smtptest.Options{Hook: func(e smtptest.Event) error {
		if e.Stage == smtptest.From {
			time.Sleep(time.Second) // so that hardly anything is sent
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(relay.Close)
	s := newSite(t, strings.Replace("rules:\n"+rowsRule("some"), "to:", "when: new.id % 3 == 0, to:", 1),
		[]string{"SMTP_URL=smtp://" + relay.Addr(), "POSTMAN_MODE=live"},
		rowsTable, "alter table rows alter x set storage external")
	s.run("setup")
	pgtest.Exec(t, s.url, fmt.Sprintf(`do $$ begin for i in 1..%d loop
		insert into rows select n, n || '@example.com', repeat(md5(n::text), %d) from generate_series((i - 1) * %d + 1, i * %[3]d) n; commit; end loop; end $$`, transactions, bytes/32, rows))
	const matches = transactions * rows / 3
	d := s.start("run")
	s.await("there is a store", func() bool { return s.counts().Messages != nil })
	free := s.block() // it reads faster than it stores
	select {
	case <-time.After(time.Second):
	case <-t.Context().Done():
	}
	free()
	s.await("all is read", func() bool { return all(s.counts().Matches) >= matches })
	d.lean()
	d.mustKill()
	d = s.start("run")
	s.await("it has taken up what is to be sent", func() bool { v := s.status(); return v.Stream.Connected && v.Relay.Messages+v.Relay.Matches > 0 })
	s.await("it has made mails of it", func() bool { return s.counts().Messages[outbox.MessageQueued] > 0 })
	d.lean()
}
