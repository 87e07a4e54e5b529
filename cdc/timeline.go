package cdc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/position"
)

// A promoted standby goes on in a timeline of its own, which has in common with the one before what lies before the position at
// which it left that. How far the log of a server reaches says nothing of it: the server may have written on for long. The
// timeline's history does ("TIMELINE_HISTORY" in "Streaming Replication Protocol", Postgres documentation).

// fork is where a timeline was left by the next one.
type fork struct {
	timeline int32
	at       position.LSN
}

// parseHistory reads a timeline's history: a line for each timeline before it, with where that was left.
func parseHistory(content []byte) (forks []fork, err error) {
	for s := bufio.NewScanner(bytes.NewReader(content)); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("a line of a timeline's history that is no line: %q", s.Text())
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("a line of a timeline's history: %w", err)
		}
		at, err := position.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("a line of a timeline's history: %w", err)
		}
		forks = append(forks, fork{int32(timeline), at})
	}
	return forks, nil
}

// leftAt is where the server's timeline left an older one that it came from: up to there, they are the same. Known is false where it
// did not come from that.
func leftAt(ctx context.Context, conn *pgconn.PgConn, older, now int32) (at position.LSN, known bool, err error) {
	if now <= 1 { // the first has no history
		return 0, false, nil
	}
	history, err := pglogrepl.TimelineHistory(ctx, conn, now)
	if err != nil {
		return 0, false, fmt.Errorf("asking for the history of timeline %d: %w", now, err)
	}
	forks, err := parseHistory(history.Content)
	if err != nil {
		return 0, false, err
	}
	for _, f := range forks {
		if f.timeline == older {
			return f.at, true, nil
		}
	}
	return 0, false, nil
}

// LeftAt is where the server's timeline left an older one that it came from: what lies before is the same in both. Known is false where
// it did not come from that.
func LeftAt(ctx context.Context, url, slot string, older, now int32) (at position.LSN, known bool, err error) {
	err = command(ctx, url, slot, func(conn *pgx.Conn) error {
		at, known, err = leftAt(ctx, conn.PgConn(), older, now)
		return err
	})
	return at, known, err
}
