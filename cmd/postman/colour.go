package main

import (
	"io"
	"os"
)

// paint colours text where people look at it: on a terminal, unless NO_COLOR (https://no-color.org) says otherwise.
type paint bool

func painter(w io.Writer) paint {
	return paint(os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && onTerminal(w))
}

// onTerminal says whether people look at a file, or type into it.
func onTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// The colours, as parameters of the terminal's SGR sequence (ECMA-48, 8.3.117).
const (
	bold   = "1"
	dim    = "2"
	red    = "1;31"
	green  = "32"
	yellow = "1;33"
	cyan   = "36"
)

func (p paint) in(colour, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}
