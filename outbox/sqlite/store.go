// Package sqlite is the outbox in one SQLite file: one machine, no server, one fsync for all that was written together.
//
// What it promises beside what package outbox does:
//
//  1. Whatever a method has acknowledged is on disk: write-ahead log, synchronous=FULL.
//  2. One goroutine writes. It takes all operations that have gathered while the last commit was on its way, runs them in one
//     transaction and answers all of them when that is durable. One that fails is undone alone. No timer delays anybody.
//  3. One process owns the file, by an advisory lock on a file beside it; a second one gets [outbox.ErrLocked].
//  4. A file that is not postman's, is damaged, or was written by a newer postman is refused in words, and left as it is.
//
// An error of the disk reaches every caller whose operation was in that transaction, and nothing of it is to be seen
// afterwards; the next operation tries anew. Claims are kept in memory and die with the process.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	sqlite3 "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"

	"postman/outbox"
)

// Options is what may be said of a store.
type Options struct {
	// ReadOnly opens a store that is there for reading alone, also while another process owns it, and a copy of one. It is as it
	// stands at each reading; all that would change it is an error.
	ReadOnly bool
}

// Store implements [outbox.Store].
type Store struct {
	path   string
	id     string
	secret []byte
	lock   *os.File
	db     *sql.DB // of conn alone
	conn   *sql.Conn
	reads  *sql.DB
	claims *claims

	suppresses atomic.Bool // the writer knows that some address is suppressed

	ops    chan op // unbuffered: what the writer took, it answers
	quit   chan struct{}
	writer sync.WaitGroup
	once   sync.Once
	closed error
}

var _ outbox.Store = (*Store)(nil)

// errClosed: the store was closed. errReadOnly: it was opened for reading alone.
var (
	errClosed   = errors.New("the store is closed")
	errReadOnly = errors.New("the store is open for reading alone")
)

// writing are the settings of the connection that writes. Folding the log in makes one commit wait, tens of times as long as
// the others: at 4000 pages, 16 MB, that is one in several hundred.
const writing = "_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=temp_store(MEMORY)&_pragma=wal_autocheckpoint(4000)"

// readers is how many lists may be read at the same time.
const readers = 4

// Open opens the store in the file at path, and makes it when there is none.
func Open(path string, o Options) (*Store, error) {
	open := newStore
	if o.ReadOnly {
		open = viewStore
	}
	s, err := open(path)
	if err == nil && !o.ReadOnly {
		err = s.open()
	}
	if err != nil {
		return nil, fmt.Errorf("opening the store %s: %w", path, explain(err))
	}
	return s, nil
}

// newStore makes the file ours.
func newStore(path string) (*Store, error) {
	path, err := resolve(path)
	if err != nil {
		return nil, err
	}
	lock, err := acquire(path)
	if err != nil {
		return nil, err
	}
	return &Store{path: path, lock: lock, claims: newClaims(), ops: make(chan op), quit: make(chan struct{})}, nil
}

// resolve makes the file when it is not there, since what it will hold is nobody else's to read, and follows symbolic links,
// so that two names of a file have one lock. A file that is there is not touched: closing it would drop the locks that a
// store of this process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
func resolve(path string) (string, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		err = f.Close()
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// open connects to the file; on an error, all that it came to is closed again.
func (s *Store) open() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	ctx := context.Background()
	if s.db, err = sql.Open("sqlite", s.dsn(writing)); err != nil {
		return err
	}
	s.db.SetMaxOpenConns(1)
	if s.conn, err = s.db.Conn(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, s.conn); err != nil {
		return err
	}
	if err := s.preallocate(); err != nil {
		return fmt.Errorf("making room for the write-ahead log: %w", err)
	}
	if s.reads, err = sql.Open("sqlite", s.dsn("mode=ro&_pragma=query_only(ON)")); err != nil {
		return err
	}
	s.reads.SetMaxOpenConns(readers)
	w := newWriter(s.conn, s.claims, &s.suppresses)
	if err := w.open(s); err != nil {
		w.close()
		return err
	}
	s.writer.Go(func() { w.run(s.ops, s.quit) })
	return nil
}

// logPages is how long the write-ahead log grows before it is folded into the file and written over from its beginning
// (wal_autocheckpoint).
const logPages = 4000

// preallocate gives the write-ahead log its blocks. A commit that makes the file longer waits for the file system's journal as
// well as for the data: it takes three times as long as one that writes over what is there. Zeros behind its last frame, or in the place
// of its header, are the end of the log to SQLite: no frame's checksum fits them (https://www.sqlite.org/fileformat.html, 4.1).
func (s *Store) preallocate() (err error) {
	const frame = 4096 + 24
	wal, err := os.OpenFile(s.path+"-wal", os.O_RDWR|os.O_CREATE, 0o600) // SQLite locks other files than this one
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, wal.Close()) }()
	end, err := wal.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if missing := int64(logPages+500)*frame - end; missing > 0 {
		if _, err := io.CopyN(wal, zeros{}, missing); err != nil {
			return err
		}
	}
	return wal.Sync()
}

// zeros are without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// dsn names the file so that no character of its path means anything else.
func (s *Store) dsn(parameters string) string {
	u := url.URL{Path: filepath.ToSlash(s.path)}
	return "file:" + u.EscapedPath() + "?_pragma=busy_timeout(10000)&_error_rc=1&_dqs=0&" + parameters
}

// ID is the store's own identity.
func (s *Store) ID() string { return s.id }

// Secret is the store's own key.
func (s *Store) Secret() []byte { return s.secret }

// identity reads who the store is.
const identity = `SELECT (SELECT value FROM meta WHERE key = 'id'), unhex((SELECT value FROM meta WHERE key = 'secret'))`

// Close waits for the operations that are on their way and gives the file free. Later ones get an error.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.quit)
		s.writer.Wait() // of a store that is only read, there is none
		if err := s.close(); err != nil {
			s.closed = fmt.Errorf("closing the store %s: %w", s.path, err)
		}
	})
	return s.closed
}

// close frees what open came to. The lock goes last: the next owner must find the write-ahead log folded in.
func (s *Store) close() error {
	var errs []error
	if s.reads != nil {
		errs = append(errs, s.reads.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		errs = append(errs, release(s.lock))
	}
	return errors.Join(errs...)
}

// explain adds to SQLite's words what they mean for an operator.
func explain(err error) error {
	e, ok := errors.AsType[*sqlite3.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_NOTADB:
		return fmt.Errorf("the file is no SQLite database; point STORE_URL at another one: %w", err)
	case codes.SQLITE_CORRUPT:
		return fmt.Errorf("the file is damaged; restore it from a copy, or move it away to begin anew: %w", err)
	case codes.SQLITE_FULL:
		return fmt.Errorf("the disk is full, and nothing was stored; make room: %w", err)
	case codes.SQLITE_BUSY:
		return fmt.Errorf("another program keeps the file locked, and nothing was stored: %w", err)
	}
	return err
}
