package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"postman/bounce"
	"postman/dispatch"
	"postman/outbox"
)

// TestOrder asks for one test mail.
type TestOrder struct {
	Address string `json:"address"`
	Relay   string `json:"relay,omitempty"` // its name; empty: the relay that mails take first
}

// TestView is what came of it.
type TestView struct {
	dispatch.Proof
	To   string `json:"to"`
	From string `json:"from"`
	Mode string `json:"mode"`
	Note string `json:"note,omitempty"` // what the mode makes of other mails
}

// SendTest sends one test mail over a relay, as the configuration says it is reached, and tells of the conversation. It goes to the address that is
// named, whatever the mode: the mode decides on what the database causes, and this mail a person has asked for. Who is suppressed gets none. Nothing
// of it is stored. A nil store is one that is not there yet.
func SendTest(ctx context.Context, c *Config, store outbox.Store, o TestOrder) (*TestView, error) {
	to, err := dispatch.AddressOf(o.Address)
	if err != nil {
		return nil, badRequest{err.Error()}
	}
	if c.From == "" {
		return nil, badRequest{"from: a test mail needs a sender; set POSTMAN_FROM"}
	}
	relay, err := c.relayNamed(o.Relay)
	if err != nil {
		return nil, err
	}
	var secret []byte
	if store != nil {
		secret = store.Secret()
		found, err := store.Suppressions(ctx, outbox.SuppressionFilter{Addresses: []string{to}})
		if err != nil {
			return nil, fmt.Errorf("asking who is suppressed: %w", err)
		}
		if len(found) > 0 {
			return nil, badRequest{fmt.Sprintf("no mail goes to %s: %s\n  → name another address, or postman suppress remove %[1]s --reason …", to, found[0].String())}
		}
	}
	view := &TestView{To: to, From: c.From, Mode: cmp.Or(c.Mode, "none"), Note: c.modeNote()}
	proof, err := dispatch.Prove(ctx, relay, &dispatch.ProofMail{
		From: c.From, ReplyTo: c.ReplyTo, Sender: bounce.Sender(c.Bounce, secret, 0), To: to, About: aboutTest(relay, view.Mode),
	}, dispatch.Timeouts{Dot: time.Minute})
	if err != nil {
		return nil, badRequest{err.Error()}
	}
	view.Proof = *proof
	return view, nil
}

func aboutTest(r dispatch.Relay, mode string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "an unknown host"
	}
	return fmt.Sprintf("Sent at %s from %s over the relay %s; the mode is %s.", time.Now().UTC().Format(time.RFC3339), host, r, mode)
}

// modeNote says what becomes of other mails, where that is not what this one shows.
func (c *Config) modeNote() string {
	switch c.Mode {
	case "live":
		return ""
	case "redirect":
		return "mode redirect: what rules make goes to " + c.Redirect + ", and to nobody else"
	}
	return "mode " + cmp.Or(c.Mode, "none") + ": what rules make is not sent; this mail alone is, since you name its address"
}

// FirstRelay is the relay of SMTP_URL as a [TestView] calls it, without user and password; empty: there is none, or its URL is no URL.
func (c *Config) FirstRelay() string {
	r, err := c.relayNamed("")
	if err != nil {
		return ""
	}
	return r.String()
}

// relayNamed is one of the configured relays, by its name or else the first.
func (c *Config) relayNamed(name string) (dispatch.Relay, error) {
	if c.SMTPURL == "" {
		return dispatch.Relay{}, badRequest{"smtp_url: no relay is named; set SMTP_URL=smtp+starttls://user:password@host:587"}
	}
	var errs []error
	all := c.relays(func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) })
	if err := errors.Join(errs...); err != nil {
		return dispatch.Relay{}, badRequest{err.Error()}
	}
	if name == "" {
		return all[0], nil
	}
	names := []string{firstRelay}
	for i := range all {
		if name == cmp.Or(all[i].Name, firstRelay) {
			return all[i], nil
		}
		if all[i].Name != "" {
			names = append(names, all[i].Name)
		}
	}
	return dispatch.Relay{}, badRequest{fmt.Sprintf("no relay is called %s; there are %s", name, strings.Join(names, ", "))}
}

// sendTest serves SendTest.
func (a *api) sendTest(w http.ResponseWriter, r *http.Request) {
	var o TestOrder
	if err := readJSON(r, &o, 64<<10, "the order"); err != nil {
		reply(w, nil, err)
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // else the request would be cancelled by it; in one process there is none
	view, err := SendTest(r.Context(), a.config, a.store, o)
	reply(w, view, err)
}
