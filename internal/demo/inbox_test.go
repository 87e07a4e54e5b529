package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"postman/outbox"
)

func TestInboxJoins(t *testing.T) {
	t.Parallel()
	b := newInbox()
	meeting.accepted(b, 4*time.Millisecond)
	if e := b.get(1); e.delivered() || !e.arrived() || e.Subject != meeting.subject || e.Name != "이서연" || e.From != "온마루 부동산중개" {
		t.Errorf("arrived: %+v", e)
	}
	meeting.recorded(b, outbox.MessageSent)
	e := b.get(1)
	if !e.delivered() || e.Rule != meeting.rule || e.Latency() != 4*time.Millisecond || e.Again {
		t.Errorf("recorded: %+v", e)
	}

	// A duplicate is a second mail, and is told apart.
	meeting.arrive(b, 9*time.Millisecond)
	if e := b.get(2); !e.delivered() || !e.Again || e.Latency() != 9*time.Millisecond {
		t.Errorf("the duplicate: %+v", e)
	}
	if e := b.get(1); e.Latency() != 4*time.Millisecond {
		t.Errorf("the first after its duplicate: %+v", e)
	}

	// What was not sent has no mail; a retry before the delivery does not become one.
	other := meeting
	other.id = "m2"
	other.recorded(b, outbox.MessageQueued)
	other.arrive(b, time.Millisecond)
	if e := b.get(3); e.arrived() || e.State != outbox.MessageQueued || e.Reason != "because" {
		t.Errorf("the retry: %+v", e)
	}
	if e := b.get(4); !e.delivered() || e.State != outbox.MessageSent || e.Again {
		t.Errorf("its delivery: %+v", e)
	}
	if got := figure(b.all()); got != (figures{3, 4 * time.Millisecond, 9 * time.Millisecond}) {
		t.Errorf("figures: %+v", got)
	}
}

func TestInboxKeepsTheNewest(t *testing.T) {
	t.Parallel()
	b := newInbox()
	for i := range keep + 7 {
		s := meeting
		s.id = fmt.Sprint("n", i)
		s.arrive(b, time.Millisecond)
	}
	all := b.all()
	if len(all) != keep || all[0].ID != 8 || all[keep-1].ID != keep+7 || b.get(7) != nil {
		t.Errorf("%d entries, from %d to %d", len(all), all[0].ID, all[len(all)-1].ID)
	}
	// The record of one that is gone is kept by itself.
	gone := meeting
	gone.id = "n0"
	gone.recorded(b, outbox.MessageSent)
	if e := b.get(keep + 8); e == nil || e.arrived() {
		t.Errorf("%+v", e)
	}
}

func TestInboxAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		go func() {
			time.Sleep(time.Second)
			meeting.accepted(b, 0)
			time.Sleep(time.Second)
			meeting.recorded(b, outbox.MessageSent)
		}()
		changed, seq, err := b.after(t.Context(), 0)
		if err != nil || len(changed) != 1 || changed[0].delivered() {
			t.Fatalf("first: %v, %v", changed, err)
		}
		changed, seq, err = b.after(t.Context(), seq)
		if err != nil || len(changed) != 1 || !changed[0].delivered() {
			t.Fatalf("then: %v, %v", changed, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if changed, again, err := b.after(ctx, seq); !errors.Is(err, context.DeadlineExceeded) || again != seq || len(changed) != 0 {
			t.Errorf("in silence: %v, %d, %v", changed, again, err)
		}
	})
}

// TestInboxMangled accepts mails whose headers cannot be read.
func TestInboxMangled(t *testing.T) {
	t.Parallel()
	for name, raw := range map[string]string{
		"nothing":   "",
		"no header": "\xff\xfe\r\n\r\n",
		"addresses": "From: <<\r\nTo: @\r\nSubject: =?x?y?z?=\r\n\r\n",
		"long":      "Subject: " + strings.Repeat("x", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newInbox()
			b.accept(smtpMail(raw))
			if e := b.get(1); e == nil || !e.arrived() || e.From != "bounces@onmaru.example" || e.To != "a@example.net" || e.Title() == "" {
				t.Errorf("%+v", e)
			}
		})
	}
}

func FuzzReadLetter(f *testing.F) {
	f.Add(meeting.raw())
	f.Add([]byte("Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/html\r\n\r\n<b>\r\n--x--"))
	f.Add([]byte(nested(20)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		l := readLetter(raw)
		if len(l.HTML)+len(l.Text) > 4*len(raw)+64 { // characters of other charsets grow, but not without bound
			t.Errorf("%d bytes read as %d", len(raw), len(l.HTML)+len(l.Text))
		}
		b := newInbox()
		b.accept(smtpMail(string(raw)))
	})
}
