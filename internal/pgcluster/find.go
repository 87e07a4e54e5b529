package pgcluster

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// places are where distributions keep server binaries off the PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
	"/usr/pgsql-*/bin",                  // the PostgreSQL project's own RPMs
	"/usr/libexec/postgresql*",          // Alpine
	"/opt/homebrew/opt/postgresql*/bin", // macOS on ARM
	"/usr/local/opt/postgresql*/bin",    // macOS on Intel
	"/Applications/Postgres.app/Contents/Versions/*/bin",
	"/usr/local/pgsql/bin", // make install
}

// Find returns the directory of the server's binaries: the one that POSTMAN_TEST_PG names, or else of those on the
// PATH, or else of the newest version in the places where distributions keep them.
func Find() (bin string, err error) {
	if bin := os.Getenv("POSTMAN_TEST_PG"); bin != "" {
		if !complete(bin) {
			return "", fmt.Errorf("POSTMAN_TEST_PG=%s: no initdb and postgres in that directory", bin)
		}
		return bin, nil
	}
	if path, err := exec.LookPath("postgres"); err == nil && complete(filepath.Dir(path)) {
		return filepath.Abs(filepath.Dir(path))
	}
	if bin, ok := newest(places); ok {
		return bin, nil
	}
	return "", errors.New("no Postgres server on this machine: apt-get install postgresql (or dnf install postgresql-server, " +
		"brew install postgresql), or set POSTMAN_TEST_PG to the directory of initdb and postgres")
}

// Installed returns the directories of server binaries by major version: where distributions keep them, and where `make pg-matrix`
// has put those that it fetched, above the working directory.
func Installed() map[int]string {
	found := make(map[int]string)
	patterns := slices.Clone(places)
	if dir, err := os.Getwd(); err == nil {
		for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
			patterns = append(patterns, filepath.Join(dir, ".cache/pg/*/native/bin"))
		}
	}
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern) // the patterns are well-formed
		for _, bin := range matches {
			if major := majorIn(bin); major != 0 && found[major] == "" && complete(bin) {
				found[major] = bin
			}
		}
	}
	return found
}

// majorIn is the number that an element of a path begins with, or 0.
func majorIn(path string) int {
	for element := range strings.SplitSeq(path, string(filepath.Separator)) {
		digits := element[:len(element)-len(strings.TrimLeft(element, "0123456789"))]
		if major, err := strconv.Atoi(digits); err == nil {
			return major
		}
	}
	return 0
}

func complete(bin string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(bin, name)); err != nil {
			return false
		}
	}
	return true
}

// newest returns the directory with the highest version in its path, among those that match the patterns and hold a server.
func newest(patterns []string) (string, bool) {
	var found []string
	for _, pattern := range patterns {
		matches, _ := filepath.Glob(pattern) // the patterns are well-formed
		found = append(found, matches...)
	}
	found = slices.DeleteFunc(found, func(bin string) bool { return !complete(bin) })
	if len(found) == 0 {
		return "", false
	}
	return slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(versionIn(a), versionIn(b)) }), true
}

// versionIn is the last number of a path, -1 without one.
func versionIn(path string) float64 {
	const digits = "0123456789"
	number := path[:strings.LastIndexAny(path, digits)+1]
	number = number[len(strings.TrimRight(number, digits+".")):]
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return -1
	}
	return v
}

// serverUser is who runs the server: Postgres refuses to be run by root.
func serverUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		return nil, fmt.Errorf("as root, looking for a user postgres or nobody to run the server: %w", err)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := cmp.Or(err1, err2); err != nil {
		return nil, fmt.Errorf("reading the ids of the user %s: %w", u.Username, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}
