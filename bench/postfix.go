package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
)

// postfix measures how fast queued mails are taken by a real Postfix, which writes each of them to its queue and has that on the disk (fsync) before it
// answers, beside as many plain loops of four round trips. Where Postfix takes all of the processors, there is little to be had for anybody: the second line is
// that of loops with one round trip that do nothing else.
func (b *bench) postfix(ctx context.Context) error {
	s := &sending{bench: b, mails: 10_000, lanes: 8}
	rounds := 3
	if b.quick {
		s.mails, rounds = 400, 1
	}
	for range rounds {
		err := func() error {
			p, err := startPostfix(ctx, filepath.Join(b.dir, "postfix"))
			if err != nil {
				return err
			}
			err = errors.Join(
				s.goMail(ctx, &goMail{relay: p.addr, workers: s.lanes, lean: true}, &s.loops),
				s.peer((&oneTrip{relay: p.addr, workers: s.lanes, mails: s.mails}).command(ctx, b.self), &s.loop),
			)
			if err == nil {
				err = s.postman(ctx, p.addr)
			}
			return errors.Join(err, p.stop(ctx))
		}()
		if err != nil {
			return fmt.Errorf("postfix: %w", err)
		}
	}
	return table(b.out, fmt.Sprintf("postfix: %d queued mails of 2 KB to Postfix, %d connections; median of %d rounds", s.mails, s.lanes, rounds), []line{
		{what: fmt.Sprintf("mails, beside %d loops of four trips", s.lanes), unit: "/s", bare: s.loops, ours: s.ours, bar: 1.4, atLeast: true},
		{what: "  what one trip gives them, and nothing else", unit: "/s", bare: s.loops, ours: s.loop},
	})
}

// mta is a Postfix of our own, beside the system's: its own configuration, queue and port. What it takes, it discards.
type mta struct{ dir, addr string }

// No address is looked up, nothing is bounced, and no mail leaves the machine.
const postfixMain = `compatibility_level = 3.6
queue_directory = %[1]s/spool
data_directory = %[1]s/data
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.example
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
default_transport = discard
relay_transport = discard
alias_maps =
alias_database =
maillog_file = %[1]s/log
maillog_file_prefixes = %[1]s
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
smtpd_recipient_restrictions = permit_mynetworks, reject
multi_instance_enable = no
`

const postfixMaster = `%s inet n - n - 100 smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
discard unix - - n - - discard
error unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
`

func startPostfix(ctx context.Context, dir string) (*mta, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		return nil, err
	}
	m := &mta{dir: dir, addr: l.Addr().String()}
	l.Close()
	config := filepath.Join(dir, "config")
	err = errors.Join(
		os.RemoveAll(dir), os.MkdirAll(config, 0o755), os.MkdirAll(filepath.Join(dir, "spool"), 0o755), os.Mkdir(filepath.Join(dir, "data"), 0o755),
		os.WriteFile(filepath.Join(config, "main.cf"), fmt.Appendf(nil, postfixMain, dir), 0o644),
		os.WriteFile(filepath.Join(config, "master.cf"), fmt.Appendf(nil, postfixMaster, m.addr), 0o644),
	)
	if err != nil {
		return nil, err
	}
	for _, parent := range []string{filepath.Dir(dir), filepath.Dir(filepath.Dir(dir))} { // its servers run as somebody else
		if err := os.Chmod(parent, 0o755); err != nil && parent != os.TempDir() {
			return nil, err
		}
	}
	if out, err := exec.CommandContext(ctx, "chown", "postfix", filepath.Join(dir, "data")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("giving Postfix its folder: %w: %s", err, out)
	}
	if out, err := exec.CommandContext(ctx, "postfix", "-c", config, "start").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("starting Postfix (apt-get install postfix): %w: %s", err, out)
	}
	if err := listens(ctx, m.addr); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return nil, errors.Join(fmt.Errorf("postfix: %w: %s", err, log), m.stop(ctx))
	}
	return m, nil
}

func (m *mta) stop(ctx context.Context) error {
	out, err := exec.CommandContext(context.WithoutCancel(ctx), "postfix", "-c", filepath.Join(m.dir, "config"), "stop").CombinedOutput()
	if err != nil {
		return fmt.Errorf("stopping Postfix: %w: %s", err, out)
	}
	return nil
}
