package main

import "syscall"

// attributes have the kernel kill the child when this process dies.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
