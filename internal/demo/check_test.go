package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"postman/outbox"
)

// played is a scenario in small: a mail to two, of which one is told a secret place, and one that is not sent.
var played = []scene{{
	does: "somebody books",
	mails: []expected{
		{rule: "booked", to: []string{"a@example.net", "b@example.net"}, subject: "미팅 등록", thread: "the meeting", body: []string{"오후 3시", "https://x.example/?a=1&b=2"}},
		{rule: "reset", to: []string{"a@example.net"}, subject: "재설정", secret: "select token"},
		{rule: "confirmed", to: []string{"c@example.net"}, subject: "확정", ics: "DTSTART:2027", thread: "the booking"},
	},
	unsent: []decided{{"confirmed", "", outbox.MessageNoAddress}},
}}

func good() map[string]sample {
	page := `<html><head><title>x</title><style>p{}</style></head><body><p>미팅은  <b>오후 3시</b></p><a href="https://x.example/?a=1&amp;b=2">…</a></body></html>`
	text := "미팅은\n오후 3시\nhttps://x.example/?a=1&b=2"
	return map[string]sample{
		"a":         {id: "1", rule: "booked", subject: "미팅 등록", to: "a@example.net", html: page, text: text, thread: "<1@x>"},
		"b":         {id: "2", rule: "booked", subject: "미팅 등록", to: "b@example.net", html: page, text: text, thread: "<1@x>"},
		"reset":     {id: "3", rule: "reset", subject: "재설정", to: "a@example.net", html: "<p>s3cret</p>", text: "s3cret"},
		"confirmed": {id: "4", rule: "confirmed", subject: "확정", to: "c@example.net", html: "<p>c</p>", text: "c", ics: "BEGIN\r\nDTSTART:20270304\r\n", thread: "<3@x>"},
		"nobody":    {id: "5", rule: "confirmed", to: ""},
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change func(mails map[string]sample, b *inbox)
		want   []problem
	}{
		"as expected": {},
		"missing": {
			func(mails map[string]sample, _ *inbox) { delete(mails, "b") },
			[]problem{{missing, "booked", "b@example.net", `"미팅 등록", when somebody books`}},
		},
		"to somebody else": {
			func(mails map[string]sample, _ *inbox) {
				change(mails, "b", func(s *sample) { s.to = "creator@example.net" })
			},
			[]problem{
				{extra, "booked", "creator@example.net", `"미팅 등록"`},
				{missing, "booked", "b@example.net", `"미팅 등록", when somebody books`},
			},
		},
		"twice": {
			func(mails map[string]sample, _ *inbox) {
				again := mails["a"]
				again.id = "9"
				mails["z"] = again
			},
			[]problem{{extra, "booked", "a@example.net", `"미팅 등록"`}},
		},
		"the same mail twice": {
			func(mails map[string]sample, _ *inbox) { mails["z"] = mails["a"] },
			[]problem{{extra, "booked", "a@example.net", `"미팅 등록"`}},
		},
		"of another rule": {
			func(mails map[string]sample, _ *inbox) { change(mails, "reset", func(s *sample) { s.rule = "news" }) },
			[]problem{
				{extra, "news", "a@example.net", `"재설정"`},
				{missing, "reset", "a@example.net", `"재설정", when somebody books`},
			},
		},
		"another subject": {
			func(mails map[string]sample, _ *inbox) { change(mails, "a", func(s *sample) { s.subject = "Meeting" }) },
			[]problem{{wrong, "booked", "a@example.net", `its subject is "Meeting"; expected "미팅 등록"`}},
		},
		"another body": {
			func(mails map[string]sample, _ *inbox) {
				change(mails, "a", func(s *sample) { s.html = strings.ReplaceAll(s.html, "3시", "4시") })
			},
			[]problem{{wrong, "booked", "a@example.net", `its HTML lacks "오후 3시"`}},
		},
		"no text": {
			func(mails map[string]sample, _ *inbox) { change(mails, "a", func(s *sample) { s.text = "" }) },
			[]problem{
				{wrong, "booked", "a@example.net", `its text lacks "오후 3시"`},
				{wrong, "booked", "a@example.net", `its text lacks "https://x.example/?a=1&b=2"`},
			},
		},
		"another's secret": {
			func(mails map[string]sample, _ *inbox) { change(mails, "reset", func(s *sample) { s.text = "other" }) },
			[]problem{{wrong, "reset", "a@example.net", "its text lacks the link"}},
		},
		"no calendar entry": {
			func(mails map[string]sample, _ *inbox) { change(mails, "confirmed", func(s *sample) { s.ics = "" }) },
			[]problem{{wrong, "confirmed", "c@example.net", "it has no calendar entry"}},
		},
		"another calendar entry": {
			func(mails map[string]sample, _ *inbox) {
				change(mails, "confirmed", func(s *sample) { s.ics = "DTSTART:2028" })
			},
			[]problem{{wrong, "confirmed", "c@example.net", `its calendar entry lacks "DTSTART:2027"`}},
		},
		"a calendar entry too many": {
			func(mails map[string]sample, _ *inbox) { change(mails, "reset", func(s *sample) { s.ics = "x" }) },
			[]problem{{wrong, "reset", "a@example.net", "it has a calendar entry"}},
		},
		"in no thread": {
			func(mails map[string]sample, _ *inbox) { change(mails, "b", func(s *sample) { s.thread = "" }) },
			[]problem{{wrong, "booked", "b@example.net", "it stands in no thread"}},
		},
		"in two threads": {
			func(mails map[string]sample, _ *inbox) { change(mails, "b", func(s *sample) { s.reply = "<2@x>" }) },
			[]problem{{wrong, "booked", "b@example.net", "References and In-Reply-To differ"}},
		},
		"in a thread": {
			func(mails map[string]sample, _ *inbox) {
				change(mails, "reset", func(s *sample) { s.thread = "<1@x>" })
			},
			[]problem{{wrong, "reset", "a@example.net", "it stands in a thread"}},
		},
		"a person wrote it": {
			func(mails map[string]sample, _ *inbox) { change(mails, "reset", func(s *sample) { s.byHand = true }) },
			[]problem{{wrong, "reset", "a@example.net", "it does not say that a machine wrote it (Auto-Submitted)"}},
		},
		"without a record": {
			func(mails map[string]sample, b *inbox) {
				stray := mails["b"]
				stray.id = "9"
				stray.accepted(b, time.Millisecond)
			},
			[]problem{{extra, "", "b@example.net", `"미팅 등록": it arrived, and postman has no record of it`}},
		},
		"sent after all": {
			func(mails map[string]sample, _ *inbox) {
				change(mails, "nobody", func(s *sample) { s.to = "d@example.net" })
			},
			[]problem{
				{extra, "confirmed", "d@example.net", `it ended as no-address: because`},
				{missing, "confirmed", "", "a message that ends as no-address"},
			},
		},
		"dead": {
			func(mails map[string]sample, b *inbox) {
				mails["b"].recorded(b, outbox.MessageDead)
				delete(mails, "b")
			},
			[]problem{
				{missing, "booked", "b@example.net", `"미팅 등록", when somebody books`},
				{extra, "booked", "b@example.net", "it ended as dead: because"},
			},
		},
		"tried again": {
			func(mails map[string]sample, b *inbox) { mails["b"].recorded(b, outbox.MessageQueued) },
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, mails := newInbox(), good()
			if test.change != nil {
				test.change(mails, b)
			}
			for key, s := range mails {
				if key == "nobody" {
					s.recorded(b, outbox.MessageNoAddress)
				} else {
					s.arrive(b, time.Millisecond)
				}
			}
			want, err := played[0].await(func(string) (string, error) { return "s3cret", nil })
			if err != nil {
				t.Fatal(err)
			}
			o := check(played, want, b.all())
			if diff := cmp.Diff(test.want, o.problems, cmp.AllowUnexported(problem{})); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if lost := strings.Contains(name, "missing"); lost && o.complete() {
				t.Error("it counts as complete")
			}
			if test.change == nil {
				tallies := []tally{{"booked", 2, 2, nil}, {"reset", 1, 1, nil}, {"confirmed", 1, 1, []string{"no-address"}}}
				if diff := cmp.Diff(tallies, o.rules, cmp.AllowUnexported(tally{})); diff != "" {
					t.Errorf("tallies (-want +got):\n%s", diff)
				}
			}
		})
	}
}

func change(mails map[string]sample, key string, f func(*sample)) {
	s := mails[key]
	f(&s)
	mails[key] = s
}

// TestScenarioIsPlain keeps the table honest: each mail of it is told from the others, and says something.
func TestScenarioIsPlain(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, s := range scenario {
		if s.does == "" || len(s.sql) == 0 {
			t.Errorf("a scene without words or deeds: %+v", s)
		}
		for _, m := range s.mails {
			if len(m.to) == 0 || m.subject == "" || len(m.body) == 0 {
				t.Errorf("%s: %s expects too little", s.does, m.rule)
			}
			for _, to := range m.to {
				key := m.rule + " " + to + " " + m.subject
				if other, twice := seen[key]; twice {
					t.Errorf("%q is expected of %q and of %q", key, other, s.does)
				}
				seen[key] = s.does
			}
		}
	}
	if len(seen) < 15 {
		t.Errorf("only %d mails", len(seen))
	}
}

func TestCheckMatches(t *testing.T) {
	t.Parallel()
	held, muted := ended{"booked", outbox.MatchHeld}, ended{"reset", outbox.MatchMuted}
	scenes := []scene{{matches: map[ended]int{held: 25}}, {}}
	for name, c := range map[string]struct {
		found    map[ended]int
		unsent   []string
		problems []problem
	}{
		"as expected":  {map[ended]int{held: 25}, []string{"25 held"}, nil},
		"too few":      {map[ended]int{held: 24}, nil, []problem{{missing, "booked", "", "matches that are held: 24; expected 25"}}},
		"none":         {nil, nil, []problem{{missing, "booked", "", "matches that are held: 0; expected 25"}}},
		"another, too": {map[ended]int{held: 25, muted: 1}, []string{"25 held"}, []problem{{extra, "reset", "", "matches that are muted: 1"}}},
	} {
		o := outcome{}
		o.checkMatches(scenes, c.found)
		if diff := cmp.Diff(c.problems, o.problems, cmp.AllowUnexported(problem{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if diff := cmp.Diff(c.unsent, o.tally("booked").unsent); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// TestCheckThread: mails stand together where they are about the same thing, and only there.
func TestCheckThread(t *testing.T) {
	t.Parallel()
	o := outcome{threads: make(map[string]string)}
	for _, c := range []struct{ about, thread, want string }{
		{"", "", ""},
		{"the meeting", "<1@x>", ""},
		{"the meeting", "<1@x>", ""},
		{"the booking", "<3@x>", ""},
		{"the meeting", "<2@x>", "it does not stand with the first mail about the meeting"},
		{"the call", "<3@x>", "it stands with the mails about the booking, and is about the call"},
	} {
		if got := o.thread(c.about, readLetter(sample{thread: c.thread}.raw())); got != c.want {
			t.Errorf("%s in %s: %q, want %q", c.about, c.thread, got, c.want)
		}
	}
}
