// Package position names places in the history of a source.
//
// An [LSN] is a byte offset in Postgres' write-ahead log. A [Position] is the identity of one change,
// for ever: LSNs recur after a restore, row LSNs are shared by many rows of a COPY and are not monotonic
// across transactions, so a change is named by its source, an epoch that an operator raises, the LSN of
// its transaction's commit and its ordinal among the surviving changes of that transaction.
//
// The package holds values only. It imports nothing of postman, and everything may import it.
package position

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// LSN is a log sequence number: a byte offset in the write-ahead log.
// Zero is invalid as a place in the log and means "none" (Postgres' InvalidXLogRecPtr).
type LSN uint64

// ParseLSN reads Postgres' text form: two hexadecimal halves of one to eight digits with a slash
// between, as pg_lsn accepts it (pg_lsn_in_internal in Postgres' pg_lsn.c). Nothing may follow.
func ParseLSN(s string) (LSN, error) {
	high, low, ok := strings.Cut(s, "/")
	hi, errHigh := half(high)
	lo, errLow := half(low)
	if !ok || errHigh != nil || errLow != nil {
		return 0, fmt.Errorf("%q is not an LSN; one looks like 16/B374D848", s)
	}
	return LSN(hi<<32 | lo), nil
}

func half(s string) (uint64, error) {
	// ParseUint also takes signs and underscores in some bases; length and digits are checked here.
	if len(s) == 0 || len(s) > 8 || strings.Trim(s, "0123456789abcdefABCDEF") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(s, 16, 32)
}

// String is Postgres' text form, for example 16/B374D848.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// MarshalText is [LSN.String].
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText is [ParseLSN].
func (l *LSN) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLSN(string(text))
	return err
}

// Position is the identity of one change. Positions of one source and epoch are ordered as the changes
// were committed.
type Position struct {
	// Source is the store's number of the replicated database; 0 is the clock, the source of scheduled rules.
	Source uint32
	// Epoch counts the gaps that an operator accepted. LSNs are comparable within one epoch only.
	Epoch uint32
	// LSN is where the transaction's commit record begins. For the clock it is the tick, in microseconds since 1970.
	LSN LSN
	// Ordinal counts from 0 the changes that survived to the commit: rows, truncated tables, transactional
	// messages. For the clock it is the row's id, or a hash of the row.
	Ordinal uint64
}

// Compare orders positions by source, epoch, LSN and ordinal.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Source, q.Source), cmp.Compare(p.Epoch, q.Epoch),
		cmp.Compare(p.LSN, q.LSN), cmp.Compare(p.Ordinal, q.Ordinal))
}

// String is source.epoch:LSN#ordinal, for example 1.1:16/B374D848#3.
func (p Position) String() string {
	return fmt.Sprintf("%d.%d:%s#%d", p.Source, p.Epoch, p.LSN, p.Ordinal)
}

// Parse reads what [Position.String] writes.
func Parse(s string) (Position, error) {
	bad := fmt.Errorf("%q is not a position; one looks like 1.1:16/B374D848#3", s)
	source, rest, ok1 := strings.Cut(s, ".")
	epoch, rest, ok2 := strings.Cut(rest, ":")
	lsn, ordinal, ok3 := strings.Cut(rest, "#")
	if !ok1 || !ok2 || !ok3 {
		return Position{}, bad
	}
	src, err1 := strconv.ParseUint(source, 10, 32)
	ep, err2 := strconv.ParseUint(epoch, 10, 32)
	l, err3 := ParseLSN(lsn)
	ord, err4 := strconv.ParseUint(ordinal, 10, 64)
	if cmp.Or(err1, err2, err3, err4) != nil {
		return Position{}, bad
	}
	return Position{Source: uint32(src), Epoch: uint32(ep), LSN: l, Ordinal: ord}, nil
}

// MarshalText is [Position.String].
func (p Position) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is [Parse].
func (p *Position) UnmarshalText(text []byte) (err error) {
	*p, err = Parse(string(text))
	return err
}
