package pgcluster

import "syscall"

// attributes put the server into a process group of its own, so that a ^C in a terminal reaches only its caller,
// and let it die with that one.
func attributes(as *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: as, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}
