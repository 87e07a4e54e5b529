package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// loop is the bare loop that postman is measured against: the least that can be done with the library that everybody uses.
// It reads the stream, parses each message, and throws it away or sends one mail for each inserted row, over one
// conversation that stays open. It has no store, no rules, no look-ups, no templates, and promises nothing. It is a
// process of its own, as postman is.
type loop struct {
	URL          string
	Slot         string
	Publications string
	Relay        string // empty: parse and discard
	Pipeline     bool   // say MAIL, RCPT and DATA in one flight, instead of one by one as net/smtp does
}

// args are what makes this program be the loop; parseLoop reads them.
func (l *loop) args() []string {
	return []string{"bare", l.URL, l.Slot, l.Publications, l.Relay, strconv.FormatBool(l.Pipeline)}
}

func parseLoop(args []string) (*loop, bool) {
	if len(args) != 6 || args[0] != "bare" {
		return nil, false
	}
	pipeline, err := strconv.ParseBool(args[5])
	return &loop{args[1], args[2], args[3], args[4], pipeline}, err == nil
}

// run reads until the context ends.
func (l *loop) run(ctx context.Context) error {
	config, err := pgconn.ParseConfig(l.URL)
	if err != nil {
		return err
	}
	config.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var to *sender
	if l.Relay != "" {
		if to, err = dial(l.Relay, l.Pipeline); err != nil {
			return err
		}
		defer to.conn.Close()
	}
	err = pglogrepl.StartReplication(ctx, conn, l.Slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: []string{
		"proto_version '2'", "messages 'true'", "streaming 'on'", "publication_names '" + l.Publications + "'",
	}})
	if err != nil {
		return fmt.Errorf("starting to stream: %w", err)
	}
	return (&reading{conn: conn, to: to}).run(ctx)
}

// reading is the loop's stream.
type reading struct {
	conn *pgconn.PgConn
	to   *sender // nil: discard
	end  pglogrepl.LSN
	told time.Time
	// streamed says that what comes belongs to a transaction in progress. The loop does not mind whether that commits.
	streamed bool
}

func (r *reading) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { r.conn.Conn().Close() })
	defer stop()
	for {
		// No deadline and no cancelling: either costs on each message.
		message, err := r.conn.ReceiveMessage(context.Background()) //nolint:contextcheck // as said
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the stream: %w", err)
		}
		switch m := message.(type) {
		case *pgproto3.CopyData:
			if err := r.copyData(m.Data); err != nil { //nolint:contextcheck // likewise
				return err
			}
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		default:
			return fmt.Errorf("unexpected message %T", m)
		}
	}
}

func (r *reading) copyData(data []byte) error {
	switch data[0] {
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data[1:])
		if err != nil {
			return err
		}
		if k.ReplyRequested || time.Since(r.told) > time.Second {
			return r.confirm()
		}
	case pglogrepl.XLogDataByteID:
		x, err := pglogrepl.ParseXLogData(data[1:])
		if err != nil {
			return err
		}
		m, err := pglogrepl.ParseV2(x.WALData, r.streamed)
		if err != nil {
			return err
		}
		return r.message(m)
	}
	return nil
}

func (r *reading) message(m pglogrepl.Message) error {
	switch m := m.(type) {
	case *pglogrepl.InsertMessageV2:
		if r.to != nil {
			return r.to.send(m.Tuple.Columns[0].Data)
		}
	case *pglogrepl.StreamStartMessageV2:
		r.streamed = true
	case *pglogrepl.StreamStopMessageV2:
		r.streamed = false
	case *pglogrepl.StreamCommitMessageV2:
		r.end = m.TransactionEndLSN
		return r.confirm()
	case *pglogrepl.CommitMessage:
		r.end = m.TransactionEndLSN
		if r.to == nil || time.Since(r.told) > time.Second {
			return r.confirm()
		}
	}
	return nil
}

func (r *reading) confirm() error {
	r.told = time.Now()
	return pglogrepl.SendStandbyStatusUpdate(context.Background(), r.conn, // which heeds no context
		pglogrepl.StandbyStatusUpdate{WALWritePosition: r.end, WALFlushPosition: r.end, WALApplyPosition: r.end})
}

// sender is a kept-open SMTP conversation.
type sender struct {
	conn     net.Conn
	in       *bufio.Reader
	pipeline bool
}

func dial(addr string, pipeline bool) (*sender, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	s := &sender{conn, bufio.NewReader(conn), pipeline}
	return s, errors.Join(s.expect("220"), s.say("EHLO bare\r\n", "250"))
}

// An envelope, command by command.
const mailFrom, rcptTo, data = "MAIL FROM:<bounces@example.com>\r\n", "RCPT TO:<somebody@example.com>\r\n", "DATA\r\n"

// send sends one mail.
func (s *sender) send(id []byte) error {
	if s.pipeline {
		if err := s.say(mailFrom+rcptTo+data, "250", "250", "354"); err != nil {
			return err
		}
	} else if err := s.envelope(); err != nil {
		return err
	}
	return s.say("From: <hello@example.com>\r\nTo: <somebody@example.com>\r\nSubject: change "+string(id)+"\r\n\r\nA row was inserted.\r\n.\r\n", "250")
}

func (s *sender) envelope() error {
	if err := s.say(mailFrom, "250"); err != nil {
		return err
	}
	if err := s.say(rcptTo, "250"); err != nil {
		return err
	}
	return s.say(data, "354")
}

// say writes in one flight and waits for the replies.
func (s *sender) say(text string, codes ...string) error {
	if _, err := io.WriteString(s.conn, text); err != nil {
		return err
	}
	for _, code := range codes {
		if err := s.expect(code); err != nil {
			return err
		}
	}
	return nil
}

// expect reads a reply, of one line or more.
func (s *sender) expect(code string) error {
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasPrefix(line, code) {
			return fmt.Errorf("the relay said %q, not %s", line, code)
		}
		if !strings.HasPrefix(line[len(code):], "-") {
			return nil
		}
	}
}
