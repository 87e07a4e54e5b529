//go:build linux || darwin

package daemon

import "syscall"

// freeBytes is how much is left of a folder's disk to who is not root.
func freeBytes(dir string) (int64, bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
