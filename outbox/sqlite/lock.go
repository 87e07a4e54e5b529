package sqlite

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"postman/outbox"
)

// acquire takes the lock of the store at path. The kernel gives it free when the process ends, however it ends. It lies on
// a file of its own, since closing any descriptor of the database file would drop SQLite's locks on that
// (https://www.sqlite.org/howtocorrupt.html, 2.2). The file stays: removing it would let two processes lock two files of
// the same name.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		err = fmt.Errorf("%w (%s)", outbox.ErrLocked, f.Name())
	default:
		err = fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return nil, errors.Join(err, f.Close())
}

// release gives the lock free. Closing the file alone would leave it to a child process that is just being started, until
// that has closed what it inherited.
func release(f *os.File) error {
	return errors.Join(syscall.Flock(int(f.Fd()), syscall.LOCK_UN), f.Close())
}
