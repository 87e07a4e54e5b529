package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// entry is an address of a list, not yet known to be one.
type entry struct {
	line            int // from 1
	address, detail string
}

// readAddresses reads a list: an address a line; or CSV, divided by commas, semicolons or tabs, with the address in its first column, or in
// the one that its first line calls email or address, and why in the one called reason or detail. Empty lines, and those that begin with
// #, are passed over.
func readAddresses(from io.Reader) (all []entry, err error) {
	var columns *layout
	lines := bufio.NewScanner(from)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("line %d is not UTF-8", n)
		}
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		if columns == nil {
			var header bool
			if columns, header = newLayout(line); header {
				continue
			}
		}
		all = append(all, columns.entry(n, line))
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, errors.New("a line is longer than 64 kB: that is no list of addresses")
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("there is no address in it")
	}
	return all, nil
}

// layout says where the columns of a list stand.
type layout struct {
	separator       rune // 0: a line is an address
	address, detail int  // -1: there is none
}

// newLayout takes the first line for a header where that names the column of the addresses.
func newLayout(line string) (_ *layout, header bool) {
	l := &layout{detail: -1}
	for _, c := range "\t;," {
		if strings.ContainsRune(line, c) {
			l.separator = c
			break
		}
	}
	for i, name := range l.split(line) {
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "email", "e-mail", "address", "email address", "recipient":
			if !header {
				l.address, header = i, true
			}
		case "reason", "detail", "comment":
			l.detail = i
		}
	}
	if !header {
		l.detail = 1
	}
	return l, header
}

// split leaves a line that is no CSV as it is: its address will tell.
func (l *layout) split(line string) []string {
	if l.separator == 0 {
		return []string{line}
	}
	r := csv.NewReader(strings.NewReader(line))
	r.Comma, r.LazyQuotes = l.separator, true
	fields, err := r.Read()
	if err != nil {
		return []string{line}
	}
	return fields
}

func (l *layout) entry(line int, text string) entry {
	e, fields := entry{line: line}, l.split(text)
	if l.address < len(fields) {
		e.address = strings.TrimSpace(fields[l.address])
	}
	if l.detail >= 0 && l.detail < len(fields) && l.detail != l.address {
		e.detail = strings.TrimSpace(fields[l.detail])
	}
	return e
}

// indented is what a command says of itself with --json, in the form in which the daemon says it.
func indented(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(text, '\n'), err
}
