//go:build unix && !linux

package pgcluster

import "syscall"

// attributes put the server into a process group of its own, so that a ^C in a terminal reaches only its caller.
// These systems cannot let a child die with its parent.
func attributes(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as, Setpgid: true}
}
