package dispatch

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/outbox"
	"postman/rules"
	"postman/templates"
	"postman/value"
)

// rehearser is one of the world's own templates and settings.
func (w *world) rehearser() *Rehearser {
	w.Helper()
	h, err := NewRehearser(Options{Templates: w.o.Templates, From: w.o.From, ReplyTo: w.o.ReplyTo, Locale: w.o.Locale, Zone: w.o.Zone})
	w.check(err)
	return h
}

// noted are the facts of an inserted note.
func (w *world) noted(id, n int, emails string) *rules.Facts {
	w.Helper()
	row := []value.Datum{value.Of(itoa(id)), value.Of(itoa(n)), value.Of("body"), {}, value.Of("s3cret")}
	if emails != "" {
		row[3] = value.Of(emails)
	}
	table := w.tables[cdc.TableName{Schema: "public", Name: "notes"}]
	change := cdc.Change{Op: cdc.Insert, Table: table, New: cdc.MakeTuple(row)}
	facts, err := must(rules.ReadShape(table.Shape())).Facts(change.AppendRest(nil, nil))
	w.check(err)
	facts.CommitTime = time.Now()
	return facts
}

// once matches what is another one in each mail: the moment, the identity, the boundaries.
var once = regexp.MustCompile(`(?m)^(Date|Message-ID): .*\r\n|[0-9a-f]{60}`)

// TestRehearse compares each mail of a rehearsal, byte by byte, with the one that is sent.
func TestRehearse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, tune: func(o *Options) { o.ReplyTo = "desk@example.com" }})
	total := 0
	for i, c := range []expandCase{{rule: "loads"}, {rule: "copies"}, {rule: "odd"}, {rule: "sources", n: 1, emails: `{x@example.com,KIM@example.com}`}, {rule: "address"}} {
		r, err := w.rule(t.Context(), outbox.Match{RuleName: c.rule})
		w.check(err)
		c.body, c.secret = value.Of("body"), value.Of("s3cret")
		made, err := w.rehearser().Rehearse(t.Context(), r, w.noted(i+1, c.n, c.emails), w.lookup)
		w.check(err)
		want := make(map[string]string)
		for _, m := range made.Mails {
			if m.NoAddress == nil {
				want[m.Address] = once.ReplaceAllString(string(m.Bytes), "")
			}
		}
		w.expand(t, i+1, c.rule, c)
		total += len(want)
		got := make(map[string]string)
		for _, m := range w.mails(total)[total-len(want):] {
			got[m.To[0]] = once.ReplaceAllString(string(m.Data), "")
		}
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s: sent (-) and rehearsed (+) differ:\n%s", c.rule, diff)
		}
		stored := make(map[string]string)
		for _, m := range w.messages() {
			if m.State == outbox.MessageNoAddress {
				stored[m.Address] = m.Reason
			}
		}
		for _, m := range made.Mails {
			if m.NoAddress != nil && stored[m.Address] != m.NoAddress.Error() {
				t.Errorf("%s: %q is told as %q and stored as %q", c.rule, m.Address, m.NoAddress, stored[m.Address])
			}
		}
		for _, c := range made.Copies {
			if stored[c.Address] != c.Reason {
				t.Errorf("the copy for %q is told as %q and stored as %q", c.Address, c.Reason, stored[c.Address])
			}
		}
	}
}

// TestRehearseEnds has matches that come to no mail, or fail.
func TestRehearseEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, stopped: true})
	for name, c := range map[string]struct {
		rule   string
		facts  *rules.Facts
		state  outbox.MatchState
		reason string
		fails  string // of the match
		broken string // of its mail
	}{
		"nobody":              {rule: "nobody", facts: w.noted(1, 0, ""), state: outbox.MatchNobody, reason: "gave no row"},
		"too many":            {rule: "many", facts: w.noted(1, 4, ""), state: outbox.MatchHeld, reason: "4 recipients, and max_recipients is 3"},
		"not too many":        {rule: "many", facts: w.noted(1, 3, ""), state: outbox.MatchExpanded},
		"refused by Postgres": {rule: "divides", facts: w.noted(1, 0, ""), fails: "division by zero"},
		"it writes":           {rule: "writes", facts: w.noted(1, 0, ""), fails: "read-only transaction"},
		"no column email":     {rule: "noemail", facts: w.noted(1, 0, ""), fails: "has no column email"},
		"a broken template":   {rule: "broken", facts: w.noted(1, 0, ""), state: outbox.MatchExpanded, broken: "nothing"},
		"sensitive values":    {rule: "casts", facts: w.noted(1, 0, ""), fails: veiled},
	} {
		r, err := w.rule(t.Context(), outbox.Match{RuleName: c.rule})
		w.check(err)
		made, err := w.rehearser().Rehearse(t.Context(), r, c.facts, w.lookup)
		switch {
		case c.fails != "":
			if err == nil || !strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v; want %s", name, err, c.fails)
			}
		case err != nil || made.State != c.state || !strings.Contains(made.Reason, c.reason):
			t.Errorf("%s: %+v, %v", name, made, err)
		case c.broken != "" && (made.Mails[0].Err == nil || !strings.Contains(made.Mails[0].Err.Error(), c.broken)):
			t.Errorf("%s: %v", name, made.Mails[0].Err)
		}
	}
	if n := len(w.matches()) + len(w.messages()); n > 0 {
		t.Errorf("%d matches and messages were stored", n)
	}
}

// TestRehearseGiven answers the queries itself; no database is asked.
func TestRehearseGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, stopped: true})
	r, err := w.rule(t.Context(), outbox.Match{RuleName: "loads"})
	w.check(err)
	field := func(name, v string) value.Field {
		return value.Field{Column: value.Column{Name: name, Type: value.Type{OID: pgtype.TextOID, Base: pgtype.TextOID}}, Datum: value.Of(v)}
	}
	given := Given{r.To[0].Query: {
		{field("email", "a@example.com"), field("id", "7")},
		{field("id", "8"), field("email", "nonsense")},
		{field("name", "비"), field("email", "b@example.com"), field("id", "9")},
	}}
	for _, l := range r.Load {
		given[l.SQL] = []value.Row{{field("name", l.Name), field("greeting", "hi"), field("next", "8")}}
	}
	delete(given, r.Load[2].SQL) // all
	made, err := w.rehearser().Rehearse(t.Context(), r, w.noted(1, 0, ""), given)
	w.check(err)
	var got []string
	for _, m := range made.Mails {
		got = append(got, m.Address+" "+strings.TrimSpace(m.Text)+errorText(m.Err)+errorText(m.NoAddress))
	}
	want := []string{
		"a@example.com Why you get this.||first|none||hi|8", `nonsense "nonsense" is no address: mail: missing '@' or angle-addr`,
		"b@example.com Why you get this.|비|first|none||hi|8",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	delete(given, r.To[0].Query)
	if made, err = w.rehearser().Rehearse(t.Context(), r, w.noted(1, 0, ""), given); err != nil || made.State != outbox.MatchNobody {
		t.Errorf("without recipients: %+v, %v", made, err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestRehearseInTransaction asks for what was changed and not committed.
func TestRehearseInTransaction(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, stopped: true})
	config, err := pgconn.ParseConfig(w.url)
	w.check(err)
	config.RuntimeParams = PinnedSettings()
	conn, err := pgconn.ConnectConfig(t.Context(), config)
	w.check(err)
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "begin; insert into staff values (3, 'new@example.com', '새 사람', 'ko')").ReadAll(); err != nil {
		t.Fatal(err)
	}
	r, err := w.rule(t.Context(), outbox.Match{RuleName: "loads"})
	w.check(err)
	made, err := w.rehearser().Rehearse(t.Context(), r, w.noted(1, 0, ""), InTransaction{conn})
	w.check(err)
	i := slices.IndexFunc(made.Mails, func(m RehearsedMail) bool { return m.Address == "new@example.com" })
	if i != 2 || made.Mails[i].Locale != "ko" || !strings.Contains(made.Mails[i].Text, "새 사람!|4") {
		t.Errorf("%d: %+v", i, made.Mails)
	}
	r, err = w.rule(t.Context(), outbox.Match{RuleName: "divides"})
	w.check(err)
	_, err = w.rehearser().Rehearse(t.Context(), r, w.noted(1, 0, ""), InTransaction{conn})
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || pg.Code != "22012" || !strings.Contains(err.Error(), "rules.yaml:") {
		t.Errorf("a query that Postgres refuses: %v", err)
	}
}

func TestNewRehearser(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{{}, {From: "nonsense"}, {From: "a@example.com", ReplyTo: "b"}} {
		o.Templates = func() *templates.Set { return nil }
		if _, err := NewRehearser(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
