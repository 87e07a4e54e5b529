package cdc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Passing says whether an error is the database's state of the moment, which ends without anybody changing a setting:
// nobody listens there, or the server starts, stops, recovers, is still a standby or has no connection left. A password that is
// wrong, a database that is missing and whatever else Postgres holds against the caller are not: it will say so again.
//
// Several hosts may have answered. One that says something lasting decides.
func Passing(err error) bool {
	passing, lasting := weigh(err)
	return passing && !lasting
}

// weigh walks all that an error wraps.
func weigh(err error) (passing, lasting bool) {
	switch e := err.(type) { //nolint:errorlint // each layer is looked at by itself
	case nil:
		return false, false
	case *SetupError:
		return e.Passing, !e.Passing
	case *pgconn.PgError:
		return passes(e.Code), !passes(e.Code)
	case *tls.CertificateVerificationError, x509.UnknownAuthorityError, x509.HostnameError, x509.CertificateInvalidError,
		tls.RecordHeaderError, tls.AlertError:
		return false, true
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			p, l := weigh(inner)
			passing, lasting = passing || p, lasting || l
		}
		return passing, lasting
	}
	switch {
	case slices.Contains(momentary, err):
		return true, false
	case errors.Unwrap(err) != nil:
		passing, lasting = weigh(errors.Unwrap(err))
	}
	_, network := err.(net.Error) //nolint:errorlint // as above
	return passing || network && !lasting, lasting
}

// momentary are what a connection ends with when its server goes away, or that say that it is not the right one yet.
var momentary = []error{
	io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, context.DeadlineExceeded, pgconn.ErrConnClosed,
	pgconn.ErrReadOnlyConnection, pgconn.ErrStandbyConnection,
}

// passes sorts SQLSTATEs ("PostgreSQL Error Codes" in its documentation).
func passes(code string) bool {
	switch code {
	case codeNoSlotsLeft, "57P04": // no replication slot is free; the database was dropped
		return false
	}
	return slices.ContainsFunc([]string{
		"08",    // the connection
		"25006", // read-only: a standby
		"40",    // conflicts
		"53",    // out of connections, memory, disk
		"55006", // somebody is at it
		"55P03", // a lock
		"57",    // shutting down, starting up, cancelled
		"XX000", // an internal error
	}, func(class string) bool { return strings.HasPrefix(code, class) })
}
