package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"postman/internal/smtptest"
)

// verdict is what came of it.
type verdict struct {
	mails      int
	lost       []int64          // changes without a mail
	invented   []int64          // changes that are mailed and were not due
	ids        map[int64]string // of the first mail of each change; a Message-ID begins with the commit and the change's place in it
	emptied    int              // mails of truncates, beyond those that were due, or short of them
	wrong      []string         // mails to somebody else, or with another text; copies with another Message-ID; a Message-ID of two changes; unreadable mails
	duplicates int              // mails beyond the first of a change
	unforced   []string         // duplicates that no failure explains
}

// came is a mail that the relay took.
type came struct {
	change int64 // 0: of a truncate, which does not say of which
	id     string
	mail
	at   time.Time
	conn int
}

// judge compares the mails with what was due, given what failed.
func judge(due *dues, mails []smtptest.Mail, kills []kill, broken []breakage) (v verdict) {
	v.mails = len(mails)
	copies, first, last := make(map[string][]*came), make(map[int64]string), make(map[int]*came)
	v.emptied = -due.emptied
	after := make(map[*came]*came) // on the same connection
	for i := range mails {
		m, err := read(&mails[i])
		if err != nil {
			v.wrong = append(v.wrong, err.Error())
			continue
		}
		if before := last[m.conn]; before != nil {
			after[before] = m
		}
		last[m.conn] = m
		known := copies[m.id]
		copies[m.id] = append(known, m)
		switch {
		case len(known) > 0 && known[0].change != m.change:
			v.wrong = append(v.wrong, fmt.Sprintf("changes %d and %d share the Message-ID %s", known[0].change, m.change, m.id))
		case len(known) > 0:
			v.duplicate(known[len(known)-1], m, after[known[len(known)-1]], kills, broken)
		case m.change == 0:
			v.emptied++
		case first[m.change] != "":
			v.wrong = append(v.wrong, fmt.Sprintf("change %d came as %s and as %s", m.change, first[m.change], m.id))
		default:
			first[m.change] = m.id
		}
		if want, ok := due.mails[m.change]; ok && m.mail != want {
			v.wrong = append(v.wrong, fmt.Sprintf("change %d came as %+v; want %+v", m.change, m.mail, want))
		}
	}
	v.lost, v.invented, v.ids = missing(due.mails, first), missing(first, due.mails), first
	return v
}

// missing are the keys of a that b does not have, in order.
func missing[A, B any](a map[int64]A, b map[int64]B) (keys []int64) {
	for _, key := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[key]; !ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// clock is how the times of copies are told.
const clock = "15:04:05.000"

// duplicate looks at two copies of a mail that came one after the other; next is what came on the connection of the first behind it.
func (v *verdict) duplicate(first, second, next *came, kills []kill, broken []breakage) {
	v.duplicates++
	killed := slices.ContainsFunc(kills, func(k kill) bool { return k.explains(first, second) })
	if !killed && !slices.ContainsFunc(broken, func(b breakage) bool { return b.explains(first, second, next) }) {
		v.unforced = append(v.unforced, fmt.Sprintf("%d, at %s and %s", first.change, first.at.Format(clock), second.at.Format(clock)))
	}
}

const (
	// onItsWay is how long a mail may lie between an end that has died and a server that reads its dot.
	onItsWay = time.Second
	// unread is how long it may take a relay, which may be slow, to answer a dot, and the daemon to read that.
	unread = slow + 2*time.Second
)

// explains says whether a kill can have come between a mail and what is known of it: its outcome was not durable then.
func (k *kill) explains(first, second *came) bool {
	return k.sending[first.id] && !first.at.After(k.at.Add(onItsWay)) && second.at.After(k.at)
}

// explains says whether the reply to the first copy can have been lost with a connection: it was the last mail on it, and came right before.
func (b *breakage) explains(first, second, next *came) bool {
	return b.conn == first.conn && !first.at.Before(b.at.Add(-unread)) && !first.at.After(b.at.Add(onItsWay)) && second.at.After(b.at) &&
		(next == nil || next.at.After(b.at))
}

// read finds out what a mail says, and of which change.
func read(m *smtptest.Mail) (*came, error) {
	parsed, err := netmail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		return nil, fmt.Errorf("a mail to %v: %w", m.To, err)
	}
	c := &came{id: parsed.Header.Get("Message-Id"), mail: mail{to: strings.Join(m.To, ", ")}, at: m.Time, conn: m.Conn}
	subject := parsed.Header.Get("Subject")
	if number, ok := strings.CutPrefix(subject, "change "); ok {
		c.change, err = strconv.ParseInt(number, 10, 64)
	} else if subject != "emptied" {
		err = errors.New("no change")
	}
	if err != nil {
		return nil, fmt.Errorf("a mail to %v with the subject %q: %w", m.To, subject, err)
	}
	if c.id == "" {
		return nil, fmt.Errorf("the mail of change %d has no Message-ID", c.change)
	}
	if to, err := parsed.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Address != c.to {
		return nil, fmt.Errorf("the mail of change %d, to %s, says To: %s", c.change, c.to, parsed.Header.Get("To"))
	}
	if c.text, err = plain(parsed); err != nil {
		return nil, fmt.Errorf("the mail of change %d: %w", c.change, err)
	}
	return c, nil
}

// foot is what each mail says below.
const foot = " Why you received this: Something happened."

// plain is a mail's text part above its foot, without line breaks.
func plain(m *netmail.Message) (string, error) {
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		return "", fmt.Errorf("it is %s: %w", kind, err)
	}
	part, err := multipart.NewReader(m.Body, params["boundary"]).NextPart() // which decodes quoted-printable
	if err != nil {
		return "", err
	}
	if kind := part.Header.Get("Content-Type"); !strings.HasPrefix(kind, "text/plain") {
		return "", fmt.Errorf("its first part is %s", kind)
	}
	all, err := io.ReadAll(part)
	text, ok := strings.CutSuffix(strings.Join(strings.Fields(string(all)), " "), foot)
	if !ok {
		return "", fmt.Errorf("it does not say why it came: %q", text)
	}
	return text, err
}

// check fails the test for all that must not be.
func (v *verdict) check(t *testing.T, app *application, o *oracle) {
	t.Helper()
	for _, change := range first(v.lost) {
		t.Errorf("one of %d lost mails: of change %d, committed at %s, that would say: %s", len(v.lost), change, o.lines[change].at, o.lines[change].text)
	}
	for _, change := range first(v.invented) {
		why := "which nobody made"
		switch {
		case app.rolledBack[change]:
			why = "which was rolled back"
		case app.unmatched[change]:
			why = "which no rule matches"
		case change <= app.changes.Load():
			why = "which was not committed"
		}
		t.Errorf("one of %d invented mails: of change %d, %s: %s", len(v.invented), change, why, v.ids[change])
	}
	if v.emptied != 0 {
		t.Errorf("of truncates there are %+d mails", v.emptied)
	}
	for _, what := range first(v.wrong) {
		t.Errorf("one of %d wrong mails: %s", len(v.wrong), what)
	}
	if len(v.unforced) > 0 {
		t.Errorf("%d mails came twice, and no failure explains it: of the changes %v", len(v.unforced), first(v.unforced))
	}
}

// first keeps what is printed short.
func first[T any](all []T) []T { return all[:min(10, len(all))] }

func TestJudge(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	at := func(second float64) time.Time { return start.Add(time.Duration(second * float64(time.Second))) }
	saying := func(subject string, second float64, to, id, text string) smtptest.Mail {
		return smtptest.Mail{To: []string{to}, Time: at(second), Conn: 1, Data: fmt.Appendf(nil, "Subject: %s\r\nMessage-ID: <%s>\r\nTo: <%s>\r\n"+
			"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n%s\r\n--b--\r\n",
			subject, id, to, text+foot)}
	}
	mailOf := func(change int, second float64, to, id string) smtptest.Mail {
		return saying(fmt.Sprint("change ", change), second, to, id, "hel=\r\nlo")
	}
	elsewhere := func(m smtptest.Mail) smtptest.Mail {
		m.Conn = 2
		return m
	}
	due := &dues{mails: map[int64]mail{1: {"a@x.y", "hello"}, 2: {"b@x.y", "hello"}}}
	one, again, two := mailOf(1, 1, "a@x.y", "one"), mailOf(1, 5, "a@x.y", "one"), mailOf(2, 6, "b@x.y", "two")
	forced := verdict{mails: 3, duplicates: 1}
	unforced := verdict{mails: 3, duplicates: 1, unforced: []string{"1, at 00:00:01.000 and 00:00:05.000"}}
	sending := map[string]bool{"<one>": true}
	for name, test := range map[string]struct {
		due    *dues // nil: those above
		mails  []smtptest.Mail
		kills  []kill
		broken []breakage
		want   verdict
	}{
		"all well":               {mails: []smtptest.Mail{two, mailOf(1, 7, "a@x.y", "one")}, want: verdict{mails: 2}},
		"one lost, one invented": {mails: []smtptest.Mail{one, mailOf(3, 2, "a@x.y", "three")}, want: verdict{mails: 2, lost: []int64{2}, invented: []int64{3}}},
		"killed over it":         {mails: []smtptest.Mail{one, again, two}, kills: []kill{{at(3), sending}}, want: forced},
		"killed on its way":      {mails: []smtptest.Mail{one, again, two}, kills: []kill{{at(0.5), sending}}, want: forced},
		"killed over another":    {mails: []smtptest.Mail{one, again, two}, kills: []kill{{at(3), map[string]bool{"<two>": true}}}, want: unforced},
		"killed before":          {mails: []smtptest.Mail{mailOf(1, 4, "a@x.y", "one"), again, two}, kills: []kill{{at(2), sending}}, want: verdict{mails: 3, duplicates: 1, unforced: []string{"1, at 00:00:04.000 and 00:00:05.000"}}},
		"killed behind both":     {mails: []smtptest.Mail{one, again, two}, kills: []kill{{at(5.5), sending}}, want: unforced},
		"its connection broke":   {mails: []smtptest.Mail{one, again, two}, broken: []breakage{{at(2), 1}}, want: forced},
		"another connection":     {mails: []smtptest.Mail{one, again, two}, broken: []breakage{{at(2), 2}}, want: unforced},
		"it broke much later":    {mails: []smtptest.Mail{one, again, two}, broken: []breakage{{at(4), 1}}, want: unforced},
		"it broke behind the next": {
			mails: []smtptest.Mail{one, mailOf(2, 1.5, "b@x.y", "two"), again}, broken: []breakage{{at(2), 1}}, want: unforced,
		},
		"it broke before the next": {
			mails: []smtptest.Mail{one, elsewhere(mailOf(2, 1.5, "b@x.y", "two")), again}, broken: []breakage{{at(2), 1}}, want: forced,
		},
		"another Message-ID": {
			mails: []smtptest.Mail{one, mailOf(1, 5, "a@x.y", "uno"), two}, kills: []kill{{at(3), sending}},
			want: verdict{mails: 3, wrong: []string{"change 1 came as <one> and as <uno>"}},
		},
		"a Message-ID twice, the wrong person, no change": {
			mails: []smtptest.Mail{one, mailOf(2, 2, "a@x.y", "one"), {To: []string{"c@x"}, Data: []byte("Subject: hello\r\n\r\n")}},
			want: verdict{mails: 3, lost: []int64{2}, wrong: []string{
				"changes 1 and 2 share the Message-ID <one>", "change 2 came as {to:a@x.y text:hello}; want {to:b@x.y text:hello}",
				`a mail to [c@x] with the subject "hello": no change`,
			}},
		},
		"another text": {
			mails: []smtptest.Mail{saying("change 1", 1, "a@x.y", "one", "good bye"), two},
			want:  verdict{mails: 2, wrong: []string{"change 1 came as {to:a@x.y text:good bye}; want {to:a@x.y text:hello}"}},
		},
		"truncates": {
			due: &dues{emptied: 2}, mails: []smtptest.Mail{saying("emptied", 1, "a@x.y", "e", "it is"), saying("emptied", 2, "a@x.y", "e", "it is"), saying("emptied", 3, "a@x.y", "f", "it is")},
			kills: []kill{{at(1), map[string]bool{"<e>": true}}}, want: verdict{mails: 3, duplicates: 1},
		},
		"a truncate too few": {due: &dues{emptied: 1}, want: verdict{emptied: -1}},
	} {
		if test.due == nil {
			test.due = due
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(test.want, judge(test.due, test.mails, test.kills, test.broken), cmp.AllowUnexported(verdict{}), cmpopts.IgnoreFields(verdict{}, "ids")); diff != "" {
				t.Error(diff)
			}
		})
	}
}
