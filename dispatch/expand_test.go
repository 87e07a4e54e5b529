package dispatch

import (
	"bytes"
	"encoding/base64"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
	"postman/internal/smtptest"
	"postman/outbox"
	"postman/value"
)

const expandRules = `
sensitive: [notes.secret, vault.token]
rules:
  - {name: vault-casts, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff, vault where vault.token::int = staff.id"}}
  - name: vault-loads
    about: a
    on: {table: notes, ops: [insert, update]}
    template: note
    to: {query: "select email from staff where id = 1"}
    load: {pin: "select upper(TOKEN)::int as pin from Vault"}
  - name: vault-hands-on
    about: a
    on: {table: notes, ops: [insert, update]}
    template: note
    to: {query: "select email, v.* from staff, vault v where staff.id = 1"}
    load: {own: "select @to.token::text::int as next"}
  - {name: vault-elsewhere, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where name::int = 1"}}
  - {name: vault-misspelt, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email, token from staff, vault where tokn = 1"}}
  - {name: nobody, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where false"}}
  - {name: odd, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from odd order by id"}}
  - {name: many, about: a, on: {table: notes, ops: [insert, update]}, template: note, max_recipients: 3, to: {query: "select 'a' || i || '@example.com' as email from generate_series(1, @new.n) i union all select 'A1@example.com'"}}
  - {name: address, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {address: "The Team <team@example.com>"}}
  - {name: text, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: new.body}
  - {name: list, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: new.emails}
  - name: sources
    about: a
    on: {table: notes, ops: [insert, update]}
    template: note
    to: [{address: team@example.com}, {query: "select email, name from staff where id = @new.n"}, new.emails]
  - name: copies
    about: a
    on: {table: notes, ops: [insert, update]}
    template: note
    to: [{address: team@example.com}, {address: lee@example.com}]
    cc: {query: "select email, name from staff union all select 'nonsense', null union all select 'team@example.com', null"}
  - name: loads
    about: Why you get this.
    on: {table: notes, ops: [insert, update]}
    to: {query: "select email, name, locale, timezone, id from staff order by id"}
    load:
      first: select id, name from staff order by id
      none: select id, name from staff where false
      all[]: select name from staff order by id
      own: select @to.name || '!' as greeting, @to.id + 1 as next
    template: loads
  - {name: noemail, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select name from staff"}}
  - {name: divides, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where 1 / @new.n = 1"}}
  - {name: writes, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "with x as (update staff set name = 'x' returning email) select email from x"}}
  - {name: slow, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where pg_sleep(30) is not null"}}
  - {name: body, about: a, on: {table: notes, ops: [insert, update]}, template: body, to: {query: "select email from staff where id = @new.n and length(@new.body) > 3"}}
  - {name: secret, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where email = @new.secret"}}
  - {name: shows, about: a, on: {table: notes, ops: [insert, update]}, template: secret, to: {address: team@example.com}}
  - {name: casts, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where id = @new.secret::int"}}
  - {name: old, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {query: "select email from staff where id = coalesce(@old.n, @new.n)"}}
  - {name: broken, about: a, on: {table: notes, ops: [insert, update]}, template: broken, to: {address: team@example.com}}
  - {name: later, about: a, on: {table: notes, ops: [insert, update]}, template: note, to: {address: team@example.com}}
`

var expandSchema = append([]string{
	`create table notes (id int primary key, n int, body text, emails text[], secret text)`,
	`alter table notes replica identity full`,
	`create table odd (id int, email text)`,
	`create table vault (token text)`,
	`insert into vault values ('hunter2')`,
	`insert into odd values (1, null), (2, 'nonsense'), (3, 'kim@example.com'), (4, ' KIM@example.com'), (5, E'a\r\nBcc: b@example.com'), (6, 'lee@example.com')`,
}, crm...)

var expandTemplates = map[string]string{
	"note.html":   `{{define "subject"}}Note {{.new.id}}{{end}}{{define "body"}}<p>{{.to.email}}</p>{{end}}`,
	"body.html":   `{{define "about"}}{{end}}{{define "subject"}}Note{{end}}{{define "text"}}{{.new.body}}{{end}}{{define "body"}}<p></p>{{end}}`,
	"secret.html": `{{define "subject"}}Note{{end}}{{define "body"}}<p>{{.new.secret}}</p>{{end}}`,
	"broken.html": "{{define \"subject\"}}Note{{end}}{{define \"body\"}}\n<p>{{.new.nothing}}</p>{{end}}",
	"loads.html": `{{define "subject"}}{{.rule}} {{.op}} {{.table}}{{end}}{{define "text"}}{{.about}}|{{.to.name}}|{{.first.name}}|{{.none.name}}|` +
		`{{range .all}}{{.name}},{{end}}|{{.own.greeting}}|{{.own.next}}{{end}}{{define "body"}}<p></p>{{end}}`,
}

// expandCase is a change, and what has to become of it.
type expandCase struct {
	rule   string
	n      int
	body   value.Datum
	emails string // a Postgres array
	secret value.Datum
	update bool
	tune   func(*outbox.NewMatch)

	match    string // the match's state
	reason   string // part of the match's reason
	messages map[string]string
	reasons  map[string]string // parts of messages' reasons, by address
	text     map[string]string // text parts of mails, by recipient
	report   string            // the beginning of a report
}

func TestExpand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates, lookup: LookupOptions{Timeout: 400 * time.Millisecond}})
	sent := func(addresses ...string) map[string]string {
		m := make(map[string]string)
		for _, a := range addresses {
			m[a] = "sent"
		}
		return m
	}
	const kim, ann = "kim@example.com", "ann@example.com"
	long := strings.Repeat("long ", 5)
	cases := map[string]expandCase{
		"nobody": {rule: "nobody", match: "nobody", reason: "gave no row"},
		"odd": {
			rule: "odd", match: "expanded",
			messages: map[string]string{"": "no-address", "nonsense": "no-address", kim: "sent", "a\r\nBcc: b@example.com": "no-address", "lee@example.com": "sent"},
			reasons:  map[string]string{"": "NULL", "nonsense": "no address", "a\r\nBcc: b@example.com": "control characters"},
		},
		"as many as may be":     {rule: "many", n: 3, match: "expanded", messages: sent("a1@example.com", "a2@example.com", "a3@example.com")},
		"too many":              {rule: "many", n: 4, match: "held", reason: "4 recipients, and max_recipients is 3"},
		"too many, but allowed": {rule: "many", n: 4, match: "expanded", messages: sent("a1@example.com", "a2@example.com", "a3@example.com", "a4@example.com")},
		"an address":            {rule: "address", match: "expanded", messages: sent("team@example.com")},
		"text":                  {rule: "text", body: value.Of(ann), match: "expanded", messages: sent(ann)},
		"text that is NULL":     {rule: "text", match: "expanded", messages: map[string]string{"": "no-address"}},
		"a list":                {rule: "list", emails: "{ann@example.com,NULL,kim@example.com}", match: "expanded", messages: map[string]string{ann: "sent", kim: "sent", "": "no-address"}},
		"an empty list":         {rule: "list", emails: "{}", match: "nobody"},
		"several sources":       {rule: "sources", n: 1, emails: "{TEAM@example.com,ann@example.com}", match: "expanded", messages: sent("team@example.com", kim, ann)},
		"copies": {
			rule: "copies", match: "expanded", messages: map[string]string{"team@example.com": "sent", "lee@example.com": "sent", "nonsense": "no-address"},
			reasons: map[string]string{"nonsense": "cc: "},
		},
		"loads": {
			rule: "loads", match: "expanded", messages: sent(kim, ann),
			text: map[string]string{
				kim: "Why you get this.|김민수|김민수||김민수,Ann,|김민수!|2",
				ann: "Why you get this.|Ann|김민수||김민수,Ann,|Ann!|3",
			},
		},
		"no email":  {rule: "noemail", match: "failed", reason: "has no column email", report: "rule noemail"},
		"divides":   {rule: "divides", n: 0, match: "failed", reason: "division by zero", report: "lookup divides"},
		"writes":    {rule: "writes", match: "failed", reason: "read-only", report: "lookup writes"},
		"slow":      {rule: "slow", match: "pending", reason: "statement timeout"},
		"unchanged": {rule: "body", n: 1, body: value.Datum{State: value.Unavailable}, update: true, match: "expanded", messages: sent(kim), text: map[string]string{kim: strings.TrimSpace(long)}},
		"unchanged and gone": {
			rule: "body", n: 1, body: value.Datum{State: value.Unavailable}, update: true,
			match: "failed", reason: "@new.body: the stream did not carry the value", report: "lookup body",
		},
		"erased": {rule: "secret", secret: value.Datum{State: value.Blanked}, match: "failed", reason: "@new.secret: the value is sensitive and was erased", report: "lookup secret"},
		"erased, for the template": {
			rule: "shows", secret: value.Datum{State: value.Blanked}, match: "expanded", messages: map[string]string{"team@example.com": "failed"},
			reasons: map[string]string{"team@example.com": "without new.secret (sensitive, erased)"}, report: "template shows",
		},
		"a secret that is no number":    {rule: "casts", secret: value.Of("hunter2"), match: "failed", reason: `invalid input syntax for type integer: "<sensitive>"`, report: "lookup casts"},
		"a secret that a query casts":   {rule: "vault-casts", match: "failed", reason: "refuses a value (SQLSTATE 22P02)", report: "lookup vault-casts"},
		"a secret that load casts":      {rule: "vault-loads", match: "failed", reason: "the database refuses a value (SQLSTATE 22P02)", report: "lookup vault-loads"},
		"a secret that is handed on":    {rule: "vault-hands-on", match: "failed", reason: "SQLSTATE 22P02", report: "lookup vault-hands-on"},
		"what is not secret":            {rule: "vault-elsewhere", match: "failed", reason: `invalid input syntax for type integer: "김민수"`, report: "lookup vault-elsewhere"},
		"a name where a secret is read": {rule: "vault-misspelt", match: "failed", reason: `column "tokn" does not exist`, report: "lookup vault-misspelt"},
		"old of an insert":              {rule: "old", n: 2, match: "expanded", messages: sent(ann)},
		"a broken template": {
			rule: "broken", match: "expanded", messages: map[string]string{"team@example.com": "failed"},
			reasons: map[string]string{"team@example.com": "broken.html:2"}, report: "template broken",
		},
		"expired":         {rule: "later", match: "expired", reason: "too late", tune: func(m *outbox.NewMatch) { m.Expires = time.Now() }},
		"a rule deleted":  {rule: "deleted", match: "held", reason: "its rule was deleted"},
		"a rule unread":   {rule: "unread", match: "pending", reason: "the disk is slow"},
		"no such content": {rule: "later", match: "failed", reason: "reading the change", tune: func(m *outbox.NewMatch) { m.Change = []byte("\x01nonsense") }, report: "rule later"},
	}
	id := 0
	for name, c := range cases {
		id++
		t.Run(name, func(t *testing.T) {
			before := len(w.reported())
			mails := len(w.relay.Mails())
			match := w.expand(t, id, name, c)
			if match.State.String() != c.match || !strings.Contains(match.Reason, c.reason) {
				t.Errorf("the match is %s: %s; want %s: %s", match.State, match.Reason, c.match, c.reason)
			}
			got := make(map[string]string)
			for _, m := range must(w.store.Messages(t.Context(), outbox.Filter{Matches: []int64{match.ID}})) {
				got[m.Address] = m.State.String()
				if !strings.Contains(m.Reason, c.reasons[m.Address]) {
					t.Errorf("%s: %s, want %s", m.Address, m.Reason, c.reasons[m.Address])
				}
			}
			if diff := cmp.Diff(c.messages, got); diff != "" && len(c.messages)+len(got) > 0 {
				t.Error(diff)
			}
			for _, m := range w.relay.Mails()[mails:] {
				if want, ok := c.text[m.To[0]]; ok && textPart(t, m.Data) != want+"\r\n" {
					t.Errorf("%s reads %q, want %q", m.To[0], textPart(t, m.Data), want)
				}
			}
			reports := w.reported()[before:]
			if told := match.Reason + strings.Join(reports, "\n"); strings.Contains(strings.ToLower(told), "hunter2") {
				t.Errorf("a sensitive value is told: %s", told)
			}
			if (c.report == "") != (len(reports) == 0) || len(reports) > 0 && !strings.HasPrefix(reports[0], c.report) {
				t.Errorf("reported %q, want %q", reports, c.report)
			}
		})
	}
}

// expand stores the case's match, waits until it is settled, and returns it.
func (w *world) expand(t *testing.T, id int, name string, c expandCase) outbox.Match {
	t.Helper()
	table := w.tables[cdc.TableName{Schema: "public", Name: "notes"}]
	long := strings.Repeat("long ", 5)
	_, err := w.conn.Exec(t.Context(), "insert into notes values ($1, $2, $3, nullif($4, '')::text[], $5)", id, c.n, long, c.emails, "s3cret")
	w.check(err)
	if name == "unchanged and gone" {
		_, err := w.conn.Exec(t.Context(), "delete from notes where id = $1", id)
		w.check(err)
	}
	row := []value.Datum{value.Of(itoa(id)), value.Of(itoa(c.n)), c.body, {}, c.secret}
	if c.emails != "" {
		row[3] = value.Of(c.emails)
	}
	ch := change{rule: c.rule, op: cdc.Insert, table: table, new: row, time: time.Now(), tune: c.tune}
	if c.update {
		ch.op = cdc.Update
	}
	w.take(ch)
	var match outbox.Match
	settled := func() bool {
		all := w.matches()
		match = all[len(all)-1]
		if match.State == outbox.MatchPending && match.Attempts == 0 {
			return false
		}
		return !slices.ContainsFunc(w.messages(), func(m outbox.Message) bool { return !m.State.Final() })
	}
	w.eventually("the match is settled", settled)
	if name == "too many, but allowed" {
		must(w.store.Act(t.Context(), outbox.Release, outbox.Filter{Matches: []int64{match.ID}}, "", time.Now()))
		w.Wake()
		w.eventually("the match is settled", func() bool { return settled() && match.State != outbox.MatchHeld })
	}
	return match
}

func itoa(n int) string { return strconv.Itoa(n) }

// part returns the decoded part of a mail with the content type.
func part(t testing.TB, data []byte, contentType string) string {
	t.Helper()
	m := parsed(t, data)
	return find(t, m.Header.Get("Content-Type"), m.Header.Get("Content-Transfer-Encoding"), m.Body, contentType)
}

func textPart(t testing.TB, data []byte) string { return part(t, data, "text/plain") }

func find(t testing.TB, contentType, encoding string, body io.Reader, want string) string {
	t.Helper()
	kind, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(kind, "multipart/") {
		if kind != want {
			return ""
		}
		switch encoding {
		case "base64":
			body = base64.NewDecoder(base64.StdEncoding, body)
		case "quoted-printable":
			body = quotedprintable.NewReader(body)
		}
		text, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	r := multipart.NewReader(body, params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err != nil {
			return ""
		}
		if text := find(t, p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p, want); text != "" {
			return text
		}
	}
}

// subject is a mail's subject, decoded.
func subject(t testing.TB, h mail.Header) string {
	t.Helper()
	s, err := new(mime.WordDecoder).DecodeHeader(h.Get("Subject"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCopiesAreNamed looks at the header and envelope of a mail with copies.
func TestCopiesAreNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: expandSchema, rules: expandRules, templates: expandTemplates})
	w.expand(t, 1, "", expandCase{rule: "copies"})
	for _, m := range w.mails(2) {
		cc, err := parsed(t, m.Data).Header.AddressList("Cc")
		first := m.To[0] == "team@example.com"
		want := []string{m.To[0]}
		if first {
			want = append(want, "kim@example.com", "ann@example.com")
		}
		if diff := cmp.Diff(want, m.To); diff != "" {
			t.Error(diff)
		}
		if first && (err != nil || len(cc) != 2 || cc[0].Name != "김민수" || cc[1].Name != "Ann") || !first && len(cc) > 0 {
			t.Errorf("%s: Cc %v %v", m.To, cc, err)
		}
	}
}

// TestMail looks at a whole mail.
func TestMail(t *testing.T) {
	t.Parallel()
	w := newWorld(t, setup{schema: crm, tune: func(o *Options) {
		o.ReplyTo, o.Locale, o.Zone = "desk@example.com", "en", must(time.LoadLocation("Europe/Berlin"))
	}, templates: map[string]string{
		"meeting.html": `{{define "subject"}}만남: {{.new.title}}{{end}}{{define "text"}}{{.new.starts_at}} {{.new.price}}{{end}}` +
			`{{define "body"}}<p>{{.new.title}}</p>{{end}}{{define "ics"}}BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//Example//postman//EN
METHOD:REQUEST
BEGIN:VEVENT
UID:meeting-{{.new.id}}@example.com
DTSTAMP:{{icstime .commit_time}}
DTSTART:{{icstime .new.starts_at}}
SUMMARY:{{.new.title}}
ORGANIZER:mailto:office@example.com
ATTENDEE;CN={{.to.name}}:mailto:{{.to.email}}
END:VEVENT
END:VCALENDAR
{{end}}`,
	}})
	w.insert("meeting", `insert into meetings values (1, '<b>Site & visit</b>', 1, '2026-11-22 03:00+00', 1234567.50)`)
	w.insert("meeting", `insert into meetings values (2, 'x', 2, '2026-11-22 03:00+00', 0.10)`)
	mails := w.mails(2)
	i := slices.IndexFunc(mails, func(m smtptest.Mail) bool { return m.To[0] == "kim@example.com" })
	data, other := mails[i].Data, mails[1-i].Data
	h := parsed(t, data).Header
	for name, want := range map[string]string{
		"From": `"CRM" <crm@example.com>`, "Reply-To": "<desk@example.com>", "Auto-Submitted": "auto-generated",
		"X-Auto-Response-Suppress": "OOF, AutoReply", "User-Agent": "", "X-Mailer": "",
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := subject(t, h); got != "만남: <b>Site & visit</b>" {
		t.Errorf("subject %q", got)
	}
	if id := h.Get("Message-Id"); !strings.HasSuffix(id, "@example.com>") || len(id) != len("<@example.com>")+39 || id == parsed(t, other).Header.Get("Message-Id") {
		t.Errorf("Message-ID %s", id)
	}
	if date, err := h.Date(); err != nil || time.Since(date).Abs() > time.Minute {
		t.Errorf("date %s, %v", date, err)
	}
	if html := part(t, data, "text/html"); !strings.Contains(html, "&lt;b&gt;Site &amp; visit&lt;/b&gt;") {
		t.Errorf("HTML %q", html)
	}
	if ics := part(t, data, "text/calendar"); !strings.Contains(ics, "ATTENDEE;CN=김민수:mailto:kim@example.com\r\n") {
		t.Errorf("calendar %q", ics)
	}
	seoul, berlin := textPart(t, data), textPart(t, other)
	if !strings.Contains(seoul, "12") || !strings.Contains(berlin, "4:00") && !strings.Contains(berlin, "04:00") {
		t.Errorf("in Seoul %q, in Berlin %q", seoul, berlin)
	}
	for line := range bytes.Lines(data) {
		if len(line) > 100 || !bytes.HasSuffix(line, []byte("\r\n")) || bytes.ContainsFunc(line, func(r rune) bool { return r > 126 }) {
			t.Errorf("line %q", line)
		}
	}
}

func TestUnknownZone(t *testing.T) {
	t.Parallel()
	schema := append(slices.Clone(crm), `update staff set timezone = 'Asia/Soul'`)
	w := newWorld(t, setup{schema: schema})
	w.insert("meeting", `insert into meetings values (1, 'x', 1)`)
	w.settled()
	if m := w.messages()[0]; m.State != outbox.MessageSent || !strings.Contains(m.Reason, `"Asia/Soul" is unknown: times are shown in UTC`) {
		t.Errorf("%s: %s", m.State, m.Reason)
	}
}
