package dispatch

import (
	"errors"
	"testing"
	"time"

	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
)

// air brings a batch with one match into the air: its mail is made, and nothing of it is stored.
func air(w *world, b *outbox.Batch) (take func([]outbox.Match)) {
	w.Helper()
	take = w.Ahead(b)
	w.holds("its mail is made", func() bool { return w.Status().InFlight == 1 })
	return take
}

// TestAhead makes a mail while its match is not stored: nothing of it leaves before that is.
func TestAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm})
	w.insert("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`)
	w.mails(1)
	b := w.batch(w.inserted("meeting", `insert into meetings values (2, 'Lunch', 2, now(), 1)`))
	take := air(w, &b)
	if sent := len(w.relay.Mails()); sent != 1 || len(w.matches()) != 1 {
		t.Errorf("%d mails and %d matches before the second is stored", sent, len(w.matches()))
	}
	ms := must(w.store.Append(t.Context(), b, w.Room()))
	take(ms)
	if m := w.mails(2)[1]; m.To[0] != "ann@example.com" {
		t.Errorf("to %s", m.To)
	}
	w.settled()
	w.holds("nothing is left in memory", func() bool { s := w.Status(); return s.Matches+s.Messages+s.InFlight == 0 })
}

// TestAheadOfNothing throws away what was made of matches that did not come to be: the store failed, or knew them.
func TestAheadOfNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm})
	w.insert("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`)
	w.mails(1)
	b := w.batch(w.inserted("meeting", `insert into meetings values (2, 'Lunch', 2, now(), 1)`))
	for range 3 { // as when Append fails, and the stream begins again
		air(w, &b)(nil)
		w.holds("its lane is free", func() bool { return w.Status().InFlight == 0 })
	}
	w.Take(must(w.store.Append(t.Context(), b, w.Room())))
	w.mails(2)
	take := w.Ahead(&b)
	take(must(w.store.Append(t.Context(), b, w.Room()))) // the same again
	w.settled()
	w.holds("nothing is left in memory", func() bool { s := w.Status(); return s.Matches+s.Messages+s.InFlight == 0 })
	if n := len(w.relay.Mails()); n != 2 || len(w.reports) > 0 {
		t.Errorf("%d mails, reports %v", n, w.reports)
	}
}

// TestAheadOfTheEnd has Run end while a match is in the air: its claim is given back.
func TestAheadOfTheEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm, stopped: true})
	stop := w.run()
	w.insert("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`)
	w.mails(1)
	w.settled()
	b := w.batch(w.inserted("meeting", `insert into meetings values (2, 'Lunch', 2, now(), 1)`))
	take := air(w, &b)
	stopped := make(chan struct{})
	go func() { defer close(stopped); stop() }()
	w.holds("it takes nothing more", func() bool { return w.Room() == 0 })
	take(must(w.store.Append(t.Context(), b, 1)))
	<-stopped
	if ms := must(w.store.ClaimMatches(t.Context(), outbox.Claim{Now: time.Now(), Most: 9})); len(ms) != 1 {
		t.Errorf("%d matches to claim", len(ms))
	}
	if s := w.Status(); s.Matches+s.Messages+s.InFlight != 0 || len(w.relay.Mails()) != 1 {
		t.Errorf("%+v", s)
	}
}

// TestAheadAgain looks up again what could not be when it was in the air.
func TestAheadAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm})
	c := w.inserted("meeting", `insert into meetings values (1, 'Site visit', 1, now(), 12.50)`)
	c.xid += 100 // not known to anybody yet
	b := w.batch(c)
	take := w.Ahead(&b)
	w.holds("it was tried", func() bool { return w.tasks.waiting() == 0 })
	for range 101 {
		pgtest.Exec(t, w.url, "select pg_current_xact_id()")
	}
	take(must(w.store.Append(t.Context(), b, w.Room())))
	w.mails(1)
	w.settled()
}

// TestAlteredTables asks a prepared `select *` of a table that looks different by now.
func TestAlteredTables(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (a int)", "insert into t values (1)")
	l := openLookup(t, url, LookupOptions{Conns: 2})
	const sql = "select * from t"
	for i, alter := range []string{"", "alter table t add b int", "alter table t drop a", "alter table t rename b to c"} {
		if alter != "" {
			pgtest.Exec(t, url, alter)
		}
		if _, err := query(t, l, 1, sql); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	pgtest.Exec(t, url, "drop table t")
	for range 2 {
		if ask, ok := errors.AsType[*askError](second(query(t, l, 1, sql))); !ok || ask.kind != wrong {
			t.Errorf("%v", ask)
		}
	}
	pgtest.Exec(t, url, "create table t as select 7 as z")
	if got, err := query(t, l, 1, sql); got != "7" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func second[A, B any](_ A, b B) B { return b }
