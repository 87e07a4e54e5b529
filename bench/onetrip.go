package main

import (
	"context"
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// oneTrip is what no sender can do better over some connections: one mail, the same again and again, the envelope of the next always in the flight that ends
// the one before. It makes no mail and remembers nothing. It is a process of its own, as postman is.
type oneTrip struct {
	relay          string
	workers, mails int
}

func (o *oneTrip) command(ctx context.Context, self string) *exec.Cmd {
	return exec.CommandContext(ctx, self, "onetrip", o.relay, strconv.Itoa(o.workers), strconv.Itoa(o.mails))
}

func parseOneTrip(args []string) (*oneTrip, bool) {
	if len(args) != 4 || args[0] != "onetrip" {
		return nil, false
	}
	workers, bad := strconv.Atoi(args[2])
	mails, bad2 := strconv.Atoi(args[3])
	return &oneTrip{args[1], workers, mails}, errors.Join(bad, bad2) == nil
}

func (o *oneTrip) run() error {
	var group sync.WaitGroup
	errs := make([]error, o.workers)
	for i := range o.workers {
		group.Go(func() { errs[i] = o.work(o.mails*(i+1)/o.workers - o.mails*i/o.workers) })
	}
	group.Wait()
	return errors.Join(errs...)
}

func (o *oneTrip) work(n int) error {
	s, err := dial(o.relay, true)
	if err != nil {
		return err
	}
	defer s.conn.Close()
	const envelope = mailFrom + rcptTo + data
	content := "From: <hello@example.com>\r\nTo: <somebody@example.com>\r\nSubject: Autumn listings\r\n\r\n" + strings.TrimSuffix(mailBody, "\r\n") + "\r\n.\r\n"
	if err := s.say(envelope, "250", "250", "354"); err != nil {
		return err
	}
	for range n - 1 {
		if err := s.say(content+envelope, "250", "250", "250", "354"); err != nil {
			return err
		}
	}
	return s.say(content, "250")
}
