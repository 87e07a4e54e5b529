package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"

	"github.com/wneessen/go-mail"
)

// goMail is the plain loop around go-mail, with its defaults: each of some workers has a connection that stays open, makes one mail after
// the other, and sends it. It is a process of its own, as postman is.
type goMail struct {
	relay          string
	workers, mails int
	lean           bool // without NOOP and RSET around each mail: four round trips, where the defaults take seven
}

func (g *goMail) args() []string {
	return []string{"gomail", g.relay, strconv.Itoa(g.workers), strconv.Itoa(g.mails), strconv.FormatBool(g.lean)}
}

func parseGoMail(args []string) (*goMail, bool) {
	if len(args) != 5 || args[0] != "gomail" {
		return nil, false
	}
	workers, bad := strconv.Atoi(args[2])
	mails, bad2 := strconv.Atoi(args[3])
	lean, bad3 := strconv.ParseBool(args[4])
	return &goMail{args[1], workers, mails, lean}, errors.Join(bad, bad2, bad3) == nil
}

func (g *goMail) run(ctx context.Context) error {
	var group sync.WaitGroup
	errs := make([]error, g.workers)
	for i := range g.workers {
		n := g.mails*(i+1)/g.workers - g.mails*i/g.workers
		group.Go(func() { errs[i] = g.work(ctx, n) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (g *goMail) work(ctx context.Context, n int) error {
	host, port, err := net.SplitHostPort(g.relay)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	options := []mail.Option{mail.WithPort(number), mail.WithTLSPolicy(mail.NoTLS)}
	if g.lean {
		options = append(options, mail.WithoutNoop(), mail.WithoutRset())
	}
	client, err := mail.NewClient(host, options...)
	if err != nil {
		return err
	}
	c, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return err
	}
	for i := range n {
		m := mail.NewMsg()
		err := errors.Join(m.FromFormat("CRM", "hello@example.com"), m.AddToFormat("Person", "person@example.com"))
		if err != nil {
			return err
		}
		m.Subject("Autumn listings for person " + strconv.Itoa(i))
		m.SetBodyString(mail.TypeTextPlain, mailBody)
		if err := client.SendWithSMTPClient(c, m); err != nil {
			return err
		}
	}
	return client.CloseWithSMTPClient(c)
}

// mailBody is the mail's text, made once.
var mailBody = func() string {
	text := make([]byte, 0, 2000)
	for len(text) < 1700 {
		text = append(text, "A bright flat with two rooms near the station, newly painted.\r\n"...)
	}
	return string(text)
}()
