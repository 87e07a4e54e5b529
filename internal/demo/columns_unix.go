//go:build unix

package demo

import (
	"os"
	"syscall"
	"unsafe"
)

// columnsOf returns the width of the terminal that a file is, if it is one (TIOCGWINSZ, tty_ioctl(4)).
func columnsOf(f *os.File) (columns int, ok bool) {
	var size struct{ rows, columns, xpixel, ypixel uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return int(size.columns), errno == 0
}
