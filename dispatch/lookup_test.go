package dispatch

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/internal/pgcluster/pgtest"
	"postman/outbox"
	"postman/rules"
	"postman/value"
)

func openLookup(t testing.TB, url string, o LookupOptions) *Lookup {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	l, err := OpenLookup(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

// query asks one thing, for a rule, after a transaction that is visible to all.
func query(t testing.TB, l *Lookup, rule uint32, sql string) (string, error) {
	t.Helper()
	answers, err := l.ask(t.Context(), asking{rule: rule, xid: 3, commit: time.Now(), flights: []flight{func([]answer) ([]statement, error) {
		return []statement{{what: "it", sql: sql}}, nil
	}}})
	if err != nil {
		return "", err
	}
	return string(answers[0].rows[0][0].Text), nil
}

// TestSessions holds that nothing one rule leaves in a session reaches another, and that values come in the form that is read.
func TestSessions(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "alter database "+pgtest.Name(url)+" set timezone = 'Asia/Seoul'", "alter database "+pgtest.Name(url)+" set datestyle = 'German'")
	l := openLookup(t, url, LookupOptions{Conns: 1, Timeout: time.Second})
	for i, step := range []struct {
		rule      uint32
		sql, want string
	}{
		{1, "select '2026-11-22 12:00+00'::timestamptz", "2026-11-22 12:00:00+00"},
		{1, "select set_config('postman.leak', 'yes', false) || set_config('timezone', 'Asia/Tokyo', false)", "yesAsia/Tokyo"},
		{1, "select current_setting('postman.leak', true)", "yes"},
		{2, "select current_setting('postman.leak', true)", ""},
		{2, "select '2026-11-22 12:00+00'::timestamptz", "2026-11-22 12:00:00+00"},
		{2, "select current_setting('statement_timeout') || current_setting('default_transaction_read_only') || current_setting('transaction_isolation')", "1sonrepeatable read"},
	} {
		if got, err := query(t, l, step.rule, step.sql); got != step.want || err != nil {
			t.Errorf("%d: %q, %v; want %q", i, got, err, step.want)
		}
	}
}

// TestKinds meets each way in which a look-up can fail, on one connection that has to survive most of them.
func TestKinds(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create table t (id int)")
	l := openLookup(t, url, LookupOptions{Conns: 1, Timeout: 300 * time.Millisecond})
	for _, test := range []struct {
		sql  string
		kind kind
		want string
	}{
		{"select nothing", wrong, "42703"},
		{"selec 1", wrong, "42601"},
		{"select 1/0", wrong, "22012"},
		{"with x as (insert into t values (1) returning id) select id from x", wrong, "25006"},
		{"select set_config('transaction_read_only', 'off', true)", wrong, "25001"},
		{"select pg_sleep(10)", busy, "57014"},
		{"select generate_series(1, 200000)", wrong, "more than"},
		{"select pg_terminate_backend(pg_backend_pid())", lost, ""},
	} {
		_, err := query(t, l, 1, test.sql)
		ask, ok := errors.AsType[*askError](err)
		if !ok || ask.kind != test.kind || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.sql, err)
		}
		if got, err := query(t, l, 1, "select 7"); got != "7" || err != nil {
			t.Fatalf("after %s: %q, %v", test.sql, got, err)
		}
	}
}

// TestLargeAnswers bounds what an answer may take of memory.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	l := openLookup(t, pgtest.Database(t), LookupOptions{Conns: 1, Timeout: time.Minute})
	_, err := query(t, l, 1, "select repeat('x', 9000000) from generate_series(1, 4)")
	if ask, ok := errors.AsType[*askError](err); !ok || ask.kind != wrong || !strings.Contains(err.Error(), "32 MB") {
		t.Error(err)
	}
}

// TestServerComesBack asks over a restart: a connection that died while it was idle is no failure, and a server that is down is
// lost, and only that.
func TestServerComesBack(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	l := openLookup(t, c.URL("postgres"), LookupOptions{Conns: 2})
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got, err := query(t, l, 1, "select 7"); got != "7" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	c.Kill()
	_, err := query(t, l, 1, "select 7")
	ask, ok := errors.AsType[*askError](err)
	if _, down := l.Down(); !ok || ask.kind != lost || down == nil {
		t.Errorf("%v, %v", err, down)
	}
	if err := c.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(testPatience)
	for {
		if got, err := query(t, l, 1, "select 7"); err == nil && got == "7" {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, down := l.Down(); down != nil {
		t.Error(down)
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, "create domain email as text", "create table t (id bigint, mail email, price numeric)")
	l := openLookup(t, url, LookupOptions{})
	sql := &rules.SQL{Text: "select mail, price * $1 as total, null as nothing from t where id = $2"}
	got, err := l.Describe(t.Context(), sql, []uint32{pgtype.NumericOID, 0})
	if err != nil {
		t.Fatal(err)
	}
	col := func(name, typ string, oid uint32) value.Column {
		return value.Column{Name: name, Type: value.Type{OID: oid, Base: oid, Name: typ}}
	}
	want := []value.Column{col("mail", "text", pgtype.TextOID), col("total", "numeric", pgtype.NumericOID), col("nothing", "text", pgtype.TextOID)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err = l.Describe(t.Context(), &rules.SQL{Text: "select nothing from t"}, nil)
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "42703" || pg.Position != 8 {
		t.Errorf("%v", err)
	}
}

func TestWarning(t *testing.T) {
	t.Parallel()
	db := pgtest.Database(t)
	name := pgtest.Name(db)
	pgtest.Exec(t, db, "create table t (id int)", "create role "+name+"_reader login", "grant select on t to "+name+"_reader",
		"create role "+name+"_writer login", "grant select, delete on t to "+name+"_writer")
	t.Cleanup(func() {
		conn := must(pgconn.Connect(context.Background(), db))
		defer conn.Close(context.Background())
		for _, role := range []string{"_reader", "_writer"} {
			for _, sql := range []string{"drop owned by ", "drop role "} {
				if _, err := conn.Exec(context.Background(), sql+name+role).ReadAll(); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for role, want := range map[string]string{"postgres": "a superuser", name + "_writer": "can write (to t", name + "_reader": ""} {
		u := must(url.Parse(db))
		u.User = url.User(role)
		l := openLookup(t, u.String(), LookupOptions{Conns: 1})
		got, err := l.Warning(t.Context())
		if err != nil || (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, %v", role, got, err)
		}
	}
}

// TestVisibleIDs checks the 64-bit id that a transaction's 32-bit one stands for against the meaning of wraparound.
func TestVisibleIDs(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	conn := pgtest.Connect(t, url)
	// The query, with the snapshot's next id given.
	_, inner, _ := strings.Cut(visibleSQL, "from (select next, next")
	sql := "select coalesce(id, 0) from (select next, next" + strings.Replace(inner, "pg_snapshot_xmax(pg_current_snapshot())::text::int8", "$3::int8", 1)
	const epoch = int64(1) << 32
	for _, next := range []int64{1000, epoch - 5, epoch + 5, 3*epoch + 7, 3*epoch + epoch/2, 9*epoch - 1} {
		for _, distance := range []int64{1, 2, 100, 1 << 20, 1<<31 - 1, 1 << 31} {
			for _, want := range []int64{next - distance, next + distance - 1} {
				if want < 3 || want >= next && distance == 1<<31 {
					continue
				}
				var got int64
				if err := conn.QueryRow(t.Context(), sql, want&(epoch-1), true, next).Scan(&got); err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("next %d: %d became %d", next, want, got)
				}
			}
			// An old one lies before the snapshot's end, however far.
			if want := next - distance - 1<<31 + 1; want > 3 {
				var got int64
				if err := conn.QueryRow(t.Context(), sql, want&(epoch-1), false, next).Scan(&got); err != nil || got != want {
					t.Errorf("next %d: %d became %d, %v", next, want, got, err)
				}
			}
		}
	}
}

// TestTypesOfMessages binds each type of a JSON value.
func TestTypesOfMessages(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	l := openLookup(t, url, LookupOptions{Conns: 1})
	message, err := value.DecodeJSON([]byte(`{"s": "it's", "n": 12345678901234567890.10, "i": 7, "t": true, "z": null, "o": {"a": [1.50, "x"]}, "e": ""}`))
	if err != nil {
		t.Fatal(err)
	}
	d := &draft{rule: &rules.Rule{Sensitive: []string{"token"}}, facts: &rules.Facts{Op: "message", Message: message}}
	for name, want := range map[string]string{
		"s": "text it's", "n": "numeric 12345678901234567890.10", "i": "numeric 7", "t": "boolean true",
		"o": `jsonb {"a": [1.50, "x"]}`, "e": "text ",
	} {
		s, err := d.bind("it", &rules.SQL{Text: "select pg_typeof($1)::text || ' ' || $1::text", Params: []rules.Param{{Scope: "message", Name: name}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		answers, err := l.ask(t.Context(), asking{flights: []flight{func([]answer) ([]statement, error) { return []statement{s}, nil }}})
		if err != nil || string(answers[0].rows[0][0].Text) != want {
			t.Errorf("%s: %v, %v; want %s", name, answers, err, want)
		}
	}
	for _, name := range []string{"z", "absent"} {
		if oid, text, err := d.parameter(rules.Param{Scope: "message", Name: name}, nil); oid != pgtype.TextOID || text != nil || err != nil {
			t.Errorf("%s: %d, %q, %v", name, oid, text, err)
		}
	}
	for _, p := range []rules.Param{{Scope: "message", Name: "token"}, {Scope: "new", Name: "x"}, {Scope: "tick"}} {
		if _, _, err := d.parameter(p, nil); err == nil {
			t.Errorf("%+v binds", p)
		}
	}
}

// TestNotVisibleYet sends nothing before look-ups see the transaction: it has committed and waits for a synchronous standby
// that is not there. Other matches go on, and no attempt is burned.
func TestNotVisibleYet(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	pgtest.Exec(t, c.URL("postgres"), crm...)
	w := newWorld(t, setup{cluster: c.URL("postgres")})
	pgtest.Exec(t, w.url, "alter system set synchronous_standby_names = 'nobody'", "select pg_reload_conf()")
	waiting := pgtest.Connect(t, w.url)
	xid := make(chan uint32, 1)
	committed := make(chan error, 1)
	go func() {
		tx, err := waiting.Begin(context.Background())
		var id uint32
		if err == nil {
			err = tx.QueryRow(context.Background(), "select pg_current_xact_id()::xid::text::int8").Scan(&id)
		}
		if err == nil {
			_, err = tx.Exec(context.Background(), "insert into staff values (9, 'new@example.com', 'New')")
		}
		xid <- id
		if err == nil {
			err = tx.Commit(context.Background()) // waits for the standby
		}
		committed <- err
	}()
	table := w.tableOf("meeting")
	early := change{
		rule: "meeting", table: table, xid: <-xid, time: time.Now(),
		new: []value.Datum{value.Of("1"), value.Of("Early"), value.Of("9"), {}, {}},
	}
	w.holds("the commit waits", func() bool {
		var n int
		w.check(w.conn.QueryRow(t.Context(), "select count(*) from pg_stat_activity where wait_event = 'SyncRep'").Scan(&n))
		return n == 1
	})
	other := early
	other.xid, other.new = 3, []value.Datum{value.Of("2"), value.Of("Other"), value.Of("1"), {}, {}}
	w.take(early)
	w.take(other)
	if m := w.mails(1)[0]; m.To[0] != "kim@example.com" {
		t.Errorf("%s was sent before its time", m.To)
	}
	time.Sleep(50 * time.Millisecond) // a few tries
	if m := w.matches()[0]; m.State != outbox.MatchPending || m.Attempts != 0 {
		t.Errorf("%s after %d attempts: %s", m.State, m.Attempts, m.Reason)
	}
	pgtest.Exec(t, w.url, "set synchronous_commit = local", "alter system reset synchronous_standby_names", "select pg_reload_conf()")
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	if m := w.mails(2)[1]; m.To[0] != "new@example.com" {
		t.Errorf("%s", m.To)
	}
}
