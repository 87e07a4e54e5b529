package dispatch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	netmail "net/mail"
	"time"

	"postman/outbox"
	"postman/rules"
	"postman/templates"
)

// Mode says what becomes of a mail that is ready.
type Mode uint8

// The modes. The zero value sends nothing.
const (
	DryRun   Mode = iota // everything is done but sending; messages end as not-sent
	Redirect             // all mails go to one address
	Live                 // mails go to their recipients
)

var modes = [...]string{"dry-run", "redirect", "live"}

// String is the mode's name.
func (m Mode) String() string { return modes[m] }

// ParseMode reads a mode's name.
func ParseMode(s string) (Mode, error) {
	for i, name := range modes {
		if name == s {
			return Mode(i), nil
		}
	}
	return DryRun, fmt.Errorf("%q is no mode; the modes are %q", s, modes)
}

// ErrRuleGone is what Options.Rules answers for a match whose rule was deleted: the match is held.
var ErrRuleGone = errors.New("its rule was deleted")

// ErrNotNow is what Options.Rules wraps when it cannot tell for now: the match is tried again later.
var ErrNotNow = errors.New("the rule cannot be read for now")

// Options are what a Dispatcher needs. Store, Lookup, Rules, Templates and From have to be there; a relay too, unless Mode is
// DryRun.
type Options struct {
	Store  outbox.Store
	Lookup *Lookup
	// Rules returns a match's rule in the version that the match was made with. An error that is neither ErrRuleGone nor ErrNotNow fails
	// the match.
	Rules     func(ctx context.Context, m outbox.Match) (*rules.Rule, error)
	Templates func() *templates.Set // the live set

	Mode     Mode
	Redirect string  // the address of mode Redirect
	Relays   []Relay // by preference
	// Route is the name of the relay that a rule's mails take, and no other; empty: whichever is first. Nil: it is so for all of them.
	Route    func(rule uint32) string
	Timeouts Timeouts
	Retry    Retry

	From    string  // the sender, with or without a name
	Domains Domains // that mails may come from; none: any
	ReplyTo string  // empty: none
	Bounce  string  // the envelope's sender; empty: From's address
	Locale  string  // BCP 47; of recipients and rules that have none
	Zone    *time.Location

	Log *slog.Logger
	// Report tells people of an error that needs them; class is a short, stable word. When nil, it is logged.
	Report func(ctx context.Context, err error, rule, class string)
	// Observe is told of each outcome once it is durable, from several goroutines, and must be quick. A message that ended at its
	// expansion has no ID.
	Observe func(outbox.Message, outbox.Outcome)
}

// Retry says when a message is tried again.
type Retry struct {
	Pauses []time.Duration // after each attempt, the last one again and again; default 30 s, 2 min, 10 min, 30 min, 2 h, 6 h
	GiveUp time.Duration   // when the pauses would add up to more, the message is dead; default 24 h
}

// Pauses are for a relay of one's own or a provider's, which does the queueing of days that RFC 5321 §4.5.4.1 asks for: it is asked again soon.
var pauses = []time.Duration{30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour}

// greylisted is the least pause after a refusal that asks to come again: who comes too soon begins anew (RFC 6647).
const greylisted = 5 * time.Minute

// after is the pause after the n-th attempt, not yet jittered; false: it was the last one. It depends on nothing but n, so that
// an outage of the relay, which burns no attempts, brings no message closer to its end.
func (r Retry) after(n int) (time.Duration, bool) {
	total, last := time.Duration(0), len(r.Pauses)-1
	for i := range n - 1 {
		if total += r.Pauses[min(i, last)]; total > r.GiveUp {
			return 0, false
		}
	}
	next := r.Pauses[min(n-1, last)]
	return next, total+next <= r.GiveUp
}

// jittered spreads pauses by a quarter up and down: what failed together must not come back together.
func jittered(d time.Duration) time.Duration {
	if d < 4 {
		return d
	}
	return d - d/4 + rand.N(d/2)
}

func (o *Options) defaults() {
	o.Timeouts.Dial = cmp.Or(o.Timeouts.Dial, 30*time.Second)
	o.Timeouts.Command = cmp.Or(o.Timeouts.Command, time.Minute)
	o.Timeouts.Body = cmp.Or(o.Timeouts.Body, 3*time.Minute)
	o.Timeouts.Dot = cmp.Or(o.Timeouts.Dot, 10*time.Minute)
	if len(o.Retry.Pauses) == 0 {
		o.Retry.Pauses = pauses
	}
	o.Retry.GiveUp = cmp.Or(o.Retry.GiveUp, 24*time.Hour)
	o.Zone = cmp.Or(o.Zone, time.UTC)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Report == nil {
		o.Report = func(ctx context.Context, err error, rule, class string) {
			o.Log.ErrorContext(ctx, err.Error(), "rule", rule, "class", class) //nolint:sloglint // the error is the message, as in the daemon's own report
		}
	}
}

// check says what is wrong with the options, all at once, and returns the composer that they make.
func (o *Options) check() (*composer, error) {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New(what))
		}
	}
	need(o.Store != nil && o.Lookup != nil && o.Rules != nil && o.Templates != nil, "store, look-ups, rules and templates are needed")
	need(o.Mode == DryRun || len(o.Relays) > 0 && !o.Relays[0].ByName, "no relay: set SMTP_URL")
	need(o.From != "", "no sender: set POSTMAN_FROM to an address, as in CRM <crm@example.com>")
	c, err := o.composer()
	if err != nil {
		errs = append(errs, err)
	}
	if o.Bounce != "" {
		var err error
		if o.Bounce, err = parseAddress(o.Bounce); err != nil {
			errs = append(errs, fmt.Errorf("bounce: %w", err))
		}
	}
	if o.Mode == Redirect {
		var err error
		if o.Redirect, err = parseAddress(o.Redirect); err != nil {
			errs = append(errs, fmt.Errorf("mode redirect needs the address that gets all mails (POSTMAN_REDIRECT): %w", err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	o.Bounce = cmp.Or(o.Bounce, c.from.Address)
	c.store, c.secret = o.Store.ID(), o.Store.Secret()
	return c, nil
}

// composer is what makes the mails. An empty From is left to check.
func (o *Options) composer() (*composer, error) {
	c := &composer{templates: o.Templates, domains: o.Domains, locale: o.Locale, zone: o.Zone}
	var errs []error
	for _, m := range []struct {
		name, text string
		to         **netmail.Address
	}{{"from", o.From, &c.from}, {"reply_to", o.ReplyTo, &c.replyTo}} {
		if m.text == "" {
			continue
		}
		var err error
		if *m.to, err = parseMailbox(m.text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
		}
	}
	return c, errors.Join(errs...)
}
