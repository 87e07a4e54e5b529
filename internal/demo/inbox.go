package demo

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-message"
	"github.com/emersion/go-message/mail"
	"github.com/emersion/go-message/textproto"

	"postman/internal/smtptest"
	"postman/outbox"
)

// entry is a mail that arrived, or that postman decided not to send, or both sides of it: what the SMTP server saw and
// what postman recorded.
type entry struct {
	ID  int // from 1, in the order in which they were first heard of
	seq int // grows with each change of any entry

	// What arrived.
	Raw       []byte
	Accepted  time.Time // the final dot was read; zero when nothing arrived
	To        string    // the envelope's recipient
	Name      string    // the recipient's, where the header tells
	From      string
	Subject   string
	MessageID string
	Again     bool // a mail with the same Message-ID arrived before

	// What postman recorded. Rule is empty until then.
	Rule      string
	Hue       int // numbers the rules in the order of their first mails
	State     outbox.MessageState
	Reason    string
	Committed time.Time
}

// Latency is the time from the commit, by Postgres' clock, to the moment when the SMTP server had the whole mail.
// Both clocks are this machine's.
func (e *entry) Latency() time.Duration { return e.Accepted.Sub(e.Committed) }

// Title is the subject, or words in its place.
func (e *entry) Title() string { return cmp.Or(strings.TrimSpace(e.Subject), "(no subject)") }

func (e *entry) arrived() bool { return !e.Accepted.IsZero() }

// delivered says whether the mail arrived and postman knows it.
func (e *entry) delivered() bool { return e.arrived() && e.Rule != "" }

// inbox joins what arrives at the SMTP server with what postman records, by Message-ID. It keeps the newest entries.
// All methods may be called from any goroutine.
type inbox struct {
	mu      sync.Mutex
	entries []*entry // oldest first; replaced, never changed, so that readers may keep them
	rules   []string // in the order of their first mails
	ids     int
	seq     int
	changed chan struct{} // closed and replaced at each change
}

// keep bounds the memory of a demo that runs over night.
const keep = 500

func newInbox() *inbox { return &inbox{changed: make(chan struct{})} }

// accept takes a mail in.
func (b *inbox) accept(m smtptest.Mail) {
	e := &entry{Raw: m.Data, Accepted: m.Time, To: strings.Join(m.To, ", "), From: m.From}
	e.readHeader()
	b.mu.Lock()
	defer b.mu.Unlock()
	e.Again = e.MessageID != "" && b.find(func(o *entry) bool { return o.arrived() && o.MessageID == e.MessageID }) != nil
	b.put(e)
}

// readHeader takes over what the list shows. What cannot be read stays empty here; the mail itself shows why.
func (e *entry) readHeader() {
	header, err := textproto.ReadHeader(bufio.NewReader(bytes.NewReader(e.Raw)))
	if err != nil {
		return
	}
	h := mail.Header{Header: message.Header{Header: header}}
	e.Subject, _ = h.Subject()
	e.MessageID = bareID(h.Get("Message-ID"))
	if from, err := h.AddressList("From"); err == nil && len(from) > 0 {
		e.From = cmp.Or(from[0].Name, from[0].Address)
	}
	to, _ := h.AddressList("To")
	for _, a := range to {
		if strings.EqualFold(a.Address, e.To) {
			e.Name = a.Name
		}
	}
}

// record takes in what postman recorded of a message. It fits the signature of daemon.Options.Observe.
func (b *inbox) record(m outbox.Message, o outbox.Outcome) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := &entry{To: m.Address, Subject: m.Subject, MessageID: bareID(m.MessageID)}
	if o.State == outbox.MessageSent {
		if arrived := b.find(func(o *entry) bool { return e.MessageID == o.MessageID && o.arrived() && o.Rule == "" }); arrived != nil {
			e = new(*arrived)
		}
	}
	e.Rule, e.Hue, e.State, e.Reason, e.Committed = m.RuleName, b.hue(m.RuleName), o.State, o.Reason, m.Committed
	b.put(e)
}

// hues is how many colours for rules the stylesheet has.
const hues = 10

func (b *inbox) hue(rule string) int {
	i := slices.Index(b.rules, rule)
	if i < 0 {
		i = len(b.rules)
		b.rules = append(b.rules, rule)
	}
	return i % hues
}

// find returns the newest entry that the test accepts, or nil.
func (b *inbox) find(test func(*entry) bool) *entry {
	for _, e := range slices.Backward(b.entries) {
		if test(e) {
			return e
		}
	}
	return nil
}

// put adds an entry, or puts it in the place of its former self.
func (b *inbox) put(e *entry) {
	b.seq++
	e.seq = b.seq
	if e.ID != 0 {
		b.entries[slices.IndexFunc(b.entries, func(o *entry) bool { return o.ID == e.ID })] = e
	} else {
		b.ids++
		e.ID = b.ids
		b.entries = append(b.entries, e)
	}
	if over := len(b.entries) - keep; over > 0 {
		b.entries = slices.Delete(b.entries, 0, over)
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// all returns the entries, oldest first.
func (b *inbox) all() []*entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.entries)
}

// get returns one entry, or nil.
func (b *inbox) get(id int) *entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.find(func(e *entry) bool { return e.ID == id })
}

// after waits until entries have changed since the given seq, and returns these in the order of their changes, and the
// seq to ask with next. Begin with 0.
func (b *inbox) after(ctx context.Context, seq int) (news []*entry, next int, err error) {
	for {
		b.mu.Lock()
		changed := b.changed
		next = b.seq
		for _, e := range b.entries {
			if e.seq > seq {
				news = append(news, e)
			}
		}
		b.mu.Unlock()
		if len(news) > 0 {
			slices.SortFunc(news, func(a, b *entry) int { return a.seq - b.seq })
			return news, next, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, seq, context.Cause(ctx)
		}
	}
}

// bareID is a Message-ID without its angle brackets.
func bareID(id string) string { return strings.Trim(id, " <>") }
