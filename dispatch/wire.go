package dispatch

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// appendContent appends a mail as it goes over the wire, up to its dot: each line ends in CRLF and in nothing else, and one that begins
// with a dot has another one in front (RFC 5321 §2.3.8, §4.5.2). A bare CR or LF is made a line's end: servers differ in what they take it
// for, and a dot between two of them must not end the mail for any of them.
func appendContent(flight, mail []byte) []byte {
	for len(mail) > 0 {
		if mail[0] == '.' {
			flight = append(flight, '.')
		}
		end := bytes.IndexAny(mail, "\r\n")
		if end < 0 {
			end = len(mail)
		}
		flight = append(append(flight, mail[:end]...), "\r\n"...)
		mail = mail[end:]
		switch {
		case bytes.HasPrefix(mail, []byte("\r\n")):
			mail = mail[2:]
		case len(mail) > 0:
			mail = mail[1:]
		}
	}
	return flight
}

// The most that a reply may be. RFC 5321 §4.5.3.1.5 allows 512 bytes a line; servers are freer.
const (
	mostReplyLine = 4 << 10
	mostReply     = 64 << 10
)

var (
	errReplyLong = fmt.Errorf("the relay's reply is longer than %d kB, or a line of it than %d kB", mostReply>>10, mostReplyLine>>10)
	errNoReply   = errors.New("the relay said something that is no SMTP reply")
)

// readReply reads one reply (RFC 5321 §4.2): lines of three digits and a hyphen, and a last one without the hyphen. Its text has the
// lines without their codes.
func readReply(r *bufio.Reader) (code int, text string, err error) {
	var all strings.Builder
	for {
		line, err := readLine(r)
		if err != nil {
			return 0, "", err
		}
		n, more, rest, ok := parseReplyLine(line)
		if !ok || code != 0 && n != code {
			return 0, "", fmt.Errorf("%w: %q", errNoReply, clip(string(line)))
		}
		if code != 0 {
			all.WriteByte('\n')
		}
		code = n
		if all.Write(rest); !more {
			return code, all.String(), nil
		}
		if all.Len() > mostReply {
			return 0, "", errReplyLong
		}
	}
}

// readLine reads a line without its end. It is only good until the next.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || len(line) > mostReplyLine {
		return nil, errReplyLong
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// parseReplyLine reads one line of a reply.
func parseReplyLine(line []byte) (code int, more bool, rest []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, nil, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, nil, false
		}
		code = 10*code + int(c-'0')
	}
	switch {
	case len(line) == 3:
		return code, false, nil, true
	case line[3] == ' ' || line[3] == '-':
		return code, line[3] == '-', line[4:], true
	}
	return 0, false, nil, false
}
