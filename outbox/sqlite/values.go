package sqlite

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"postman/outbox"
)

// How Go's values stand in the tables, and the states in SQL.

// micros is a time in microseconds since 1970, as all times are stored; NULL for no time.
func micros(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// rounded is a time as it comes back from the store.
func rounded(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

// moment reads a time.
func moment(v sql.NullInt64) time.Time {
	if !v.Valid {
		return time.Time{}
	}
	return time.UnixMicro(v.Int64).UTC()
}

// or is t, or else the other time: what has no due time is due now.
func or(t, other time.Time) time.Time {
	if t.IsZero() {
		return other
	}
	return t
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// present makes an empty blob of nil, where the column allows no NULL.
func present(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// absent makes NULL of what is empty.
func absent(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

func hashFrom(b []byte) (h outbox.Hash, err error) {
	if b != nil && copy(h[:], b) != len(h) {
		err = fmt.Errorf("%x is no SHA-256", b)
	}
	return h, err
}

// idOrNull is an id, or NULL where there is none.
func idOrNull(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

// hashOrNull is a hash, or NULL where there is none.
func hashOrNull(h outbox.Hash) any {
	if h == (outbox.Hash{}) {
		return nil
	}
	return h[:]
}

// list is a JSON list, or NULL when it is empty.
func list[T any](values []T) any {
	if len(values) == 0 {
		return nil
	}
	text, err := json.Marshal(values)
	if err != nil {
		panic(err) // strings and numbers only
	}
	return string(text)
}

// in is an SQL list of states.
func in[S outbox.MatchState | outbox.MessageState](all []S, choose func(S) bool) string {
	var numbers []string
	for _, s := range all {
		if choose(s) {
			numbers = append(numbers, fmt.Sprint(int(s)))
		}
	}
	return "(" + strings.Join(numbers, ", ") + ")"
}
