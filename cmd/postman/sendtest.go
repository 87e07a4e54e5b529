package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"postman/daemon"
)

type sendTestCmd struct {
	Address string `arg:"" help:"Who gets the mail, whatever the mode."`
	Relay   string `help:"The relay, by its name in relays (default: the first)." placeholder:"NAME"`
	JSON    bool   `name:"json" help:"Print JSON (docs/cli.md)."`
}

// Run sends the mail: by the daemon that runs, else by itself. It exits 1 when the relay did not take it.
func (s *sendTestCmd) Run(p *program) error {
	view, err := s.send(p)
	if err != nil {
		return err
	}
	if err := s.warn(p, view); err != nil {
		return err
	}
	text, err := indented(view)
	if err != nil {
		return err
	}
	if !s.JSON {
		text = []byte(sentText(view, painter(p.stdout)))
	}
	if _, err = p.stdout.Write(text); err == nil && !view.OK() {
		err = toldError{errors.New(view.Problem)}
	}
	return err
}

// send needs no store: a relay is tried before anything else is there, too.
func (s *sendTestCmd) send(p *program) (*daemon.TestView, error) {
	c, err := p.flags.resolve()
	if err != nil {
		return nil, err
	}
	order := daemon.TestOrder{Address: s.Address, Relay: s.Relay}
	if _, err := os.Stat(c.StorePath()); errors.Is(err, os.ErrNotExist) {
		view, err := daemon.SendTest(p.ctx, &c, nil, order)
		if err != nil {
			return nil, usageError{err}
		}
		return view, nil
	}
	to, err := connect(p.ctx, c)
	if err != nil {
		return nil, err
	}
	view := new(daemon.TestView)
	_, err = to.call(p.ctx, http.MethodPost, "/v1/send-test", order, view)
	return view, errors.Join(err, to.close())
}

// warn says, beside the answer, that the daemon has gone by its own relays where another is named here.
func (s *sendTestCmd) warn(p *program, v *daemon.TestView) error {
	c, err := p.flags.resolve()
	if err != nil || c.SMTPURL == "" || s.Relay != "" {
		return err
	}
	if c.FirstRelay() == v.Relay {
		return nil
	}
	_, err = fmt.Fprintln(p.stderr, "sent by the running daemon over its relays; SMTP_URL here is not used")
	return err
}

// sentText is the conversation, and what came of it.
func sentText(v *daemon.TestView, c paint) string {
	var w strings.Builder
	fmt.Fprintf(&w, "a test mail from %s to %s, over %s\n\n", v.From, v.To, v.Relay)
	printConversation(&w, v, c)
	if v.OK() {
		fmt.Fprintf(&w, "\n%s the relay took it: %d %s\n  Message-ID %s; what stands behind the code is how the relay's own log calls it\n", c.in(green, "✓"), v.Code, v.Reply, v.MessageID)
	} else {
		fmt.Fprintf(&w, "\n%s %s\n  → %s\n", c.in(red, "✕"), v.Problem, v.Advice)
	}
	if v.Note != "" {
		fmt.Fprintf(&w, "  %s\n", v.Note)
	}
	return w.String()
}

func printConversation(w *strings.Builder, v *daemon.TestView, c paint) {
	for _, l := range v.Lines {
		switch l.By {
		case "we":
			fmt.Fprintf(w, "  %s %s\n", c.in(bold, "→"), l.Text)
		case "relay":
			fmt.Fprintf(w, "  %s %s\n", c.in(cyan, "←"), l.Text)
		default:
			fmt.Fprintf(w, "  %s\n", c.in(dim, "· "+l.Text))
		}
	}
}
