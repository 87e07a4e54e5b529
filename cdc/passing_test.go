package cdc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"postman/internal/pgcluster/pgtest"
)

// TestPassing asks real servers, in every state that one can be in, and a few errors that they seldom give.
func TestPassing(t *testing.T) {
	t.Parallel()
	c := pgtest.Own(t, nil)
	url := c.URL("postgres")
	pgtest.Exec(t, url, "create role barred login", "create role known login password 'right'", "create role kept login connection limit 0",
		"create database closed", "revoke connect on database closed from public")
	hba := "host all barred 127.0.0.1/32 reject\nhost all known 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"
	if err := os.WriteFile(filepath.Join(c.Dir, "data", "pg_hba.conf"), []byte(hba), 0o644); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, "select pg_reload_conf()")
	as := func(who string) string { return strings.Replace(url, "postgres@", who+"@", 1) }
	attempt := func(url string) error {
		conn, err := pgx.Connect(t.Context(), url)
		if err != nil {
			return fmt.Errorf("connecting: %w", err)
		}
		return errors.Join(errors.New("connected"), conn.Close(context.Background()))
	}
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nobody listens":                {attempt("postgres://127.0.0.1:1/x"), true},
		"two hosts, nobody listens":     {attempt("postgres://127.0.0.1:1,127.0.0.1:2/x"), true},
		"no such host":                  {attempt("postgres://nowhere.invalid/x"), true},
		"no socket":                     {attempt("host=/nonexistent dbname=x"), true},
		"nobody answers":                {attempt("postgres://" + silent.Addr().String() + "/x?connect_timeout=1"), true},
		"wrong password":                {attempt(as("known:wrong")), false},
		"a dead host, a wrong password": {attempt(strings.Replace(as("known:wrong"), "@", "@127.0.0.1:1,", 1)), false},
		"no password":                   {attempt(as("known")), false},
		"pg_hba.conf rejects":           {attempt(as("barred")), false},
		"no such role":                  {attempt(as("nobody_at_all")), false},
		"no such database":              {attempt(strings.Replace(url, "/postgres", "/nowhere", 1)), false},
		"may not connect":               {attempt(strings.Replace(as("known:right"), "/postgres", "/closed", 1)), false},
		"too many connections":          {attempt(as("kept")), true},
		"no TLS there":                  {attempt(strings.Replace(url, "disable", "require", 1)), false},
		"unreadable":                    {attempt("postgres://["), false},
		"a standby is wanted":           {attempt(url + "&target_session_attrs=read-write&default_transaction_read_only=on"), true},
		"it starts":                     {&pgconn.PgError{Code: "57P03"}, true},
		"it stops":                      {fmt.Errorf("asking: %w", &pgconn.PgError{Code: "57P01"}), true},
		"it crashed":                    {&pgconn.PgError{Code: "57P02"}, true},
		"the database was dropped":      {&pgconn.PgError{Code: "57P04"}, false},
		"a syntax error":                {&pgconn.PgError{Code: "42601"}, false},
		"no slot is left":               {permanent(&pgconn.PgError{Code: codeNoSlotsLeft}, "s"), false},
		"a standby":                     {(&Database{Version: 15, WALLevel: "logical", InRecovery: true}).Ready(), true},
		"wal_level":                     {(&Database{Version: 15, WALLevel: "replica"}).Ready(), false},
		"ours":                          {errors.New("the rules are wrong"), false},
		"stopped":                       {context.Canceled, false},
		"nothing":                       {nil, false},
	} {
		if got := Passing(c.err); got != c.want {
			t.Errorf("%s: Passing is %v of %v", name, got, c.err)
		}
	}
	conn := pgtest.Connect(t, url)
	_, err = conn.Exec(t.Context(), "select pg_terminate_backend(pg_backend_pid())")
	for range 2 { // what the server said at last, then what the connection says of itself
		if !Passing(err) {
			t.Errorf("terminated: Passing is false of %v", err)
		}
		_, err = conn.Exec(t.Context(), "select 1")
	}
}
