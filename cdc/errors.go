package cdc

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"

	"postman/position"
)

// SetupError says that something has to be changed by a person before the stream can run: trying again will not help.
type SetupError struct {
	Problem string
	Fix     string
	Err     error // what Postgres said; may be nil
	Passing bool  // it may also end by itself: a standby is promoted
}

// Error is for the operator: the problem, what Postgres said, and the way out.
func (e *SetupError) Error() string {
	if e.Err == nil {
		return e.Problem + "\n  → " + e.Fix
	}
	return fmt.Sprintf("%s: %v\n  → %s", e.Problem, e.Err, e.Fix)
}

func (e *SetupError) Unwrap() error { return e.Err }

// DecodeError says that a message of the stream could not be read, and is one without which the stream cannot go on: it stays before
// it. What it can go on without is handed over unread (see [Change]).
type DecodeError struct {
	LSN     position.LSN // of the message
	Commit  position.LSN // of its transaction; zero outside of one, and while it is in progress
	XID     uint32       // of its transaction, while that is in progress
	Message []byte       // the whole of it
	Err     error
}

func (e *DecodeError) Error() string {
	within := fmt.Sprintf("the transaction that commits at %s", e.Commit)
	if e.XID != 0 {
		within = fmt.Sprintf("transaction %d, which is in progress", e.XID)
	}
	return fmt.Sprintf("reading the stream at %s, in %s: %v (the message begins with %q)\n"+
		"  → nothing is lost while the slot waits; please report this, with the version of Postgres",
		e.LSN, within, e.Err, e.Message[:min(len(e.Message), 6)]) // and no value of a row
}

func (e *DecodeError) Unwrap() error { return e.Err }

// SQLSTATEs that this package tells apart ("PostgreSQL Error Codes" in its documentation).
const (
	codeInvalidAuthorization = "28000"
	codeInvalidPassword      = "28P01"
	codeNoDatabase           = "3D000"
	codeNoPrivilege          = "42501"
	codeUndefined            = "42704"
	codeDuplicate            = "42710"
	codeNoSlotsLeft          = "53400"
	codeNotInState           = "55000"
	codeInUse                = "55006"
)

// sqlState is the code of an error that Postgres reported, or empty.
func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// permanent turns what Postgres will say again at every try into a SetupError; other errors it returns as they are.
func permanent(err error, slot string) error {
	problem := func(problem, fix string) error { return &SetupError{Problem: problem, Fix: fix, Err: err} }
	switch sqlState(err) {
	case codeInvalidAuthorization, codeInvalidPassword:
		return problem("Postgres does not let postman in", "check user and password in DATABASE_URL, and pg_hba.conf")
	case codeNoDatabase:
		return problem("the database does not exist", "check the database's name in DATABASE_URL")
	case codeNoPrivilege:
		return problem("the role may not replicate", `ALTER ROLE <the role in DATABASE_URL> REPLICATION; (on Amazon RDS: GRANT rds_replication TO …)`)
	case codeUndefined:
		return problem("a slot or publication is gone", "start again: what is missing is looked at then")
	case codeNotInState:
		return problem(fmt.Sprintf("slot %q cannot be read", slot), "start again: the slot is compared with the store then")
	case codeNoSlotsLeft:
		return problem("all replication slots are taken", "raise max_replication_slots, restart Postgres, or drop a slot that nobody uses (pg_replication_slots)")
	case codeDuplicate:
		return problem(fmt.Sprintf("slot %q exists already", slot), "choose another name (POSTMAN_SLOT), or drop it: SELECT pg_drop_replication_slot('"+slot+"');")
	}
	return err
}
