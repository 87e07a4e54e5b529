package bounce

import (
	"bufio"
	"io"
	"strings"
)

// field is a line of a report, with what was folded behind it; the empty one stands between groups.
type field struct{ name, value string }

// fields reads the lines of a report: RFC 3464 §2.1 and RFC 5965 §3 write them as those of a mail's header. Names are in lower case.
func fields(from io.Reader) (all []field) {
	lines := bufio.NewScanner(from)
	for lines.Scan() && len(all) < 20*mostRecipients {
		line := strings.TrimRight(lines.Text(), " \t\r")
		if line == "" {
			all = append(all, field{})
			continue
		}
		if n := len(all); (line[0] == ' ' || line[0] == '\t') && n > 0 && all[n-1].name != "" {
			all[n-1].value += " " + strings.TrimSpace(line)
			continue
		}
		if name, value, ok := strings.Cut(line, ":"); ok {
			all = append(all, field{strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)})
		}
	}
	return all
}

// readStatus reads a message/delivery-status: a group about the mail, and one about each recipient.
func (r *Report) readStatus(body io.Reader) {
	var one Recipient
	named := false
	end := func() {
		if named && len(r.Recipients) < mostRecipients {
			one.settle()
			r.Recipients = append(r.Recipients, one)
		}
		one, named = Recipient{}, false
	}
	for _, f := range fields(body) {
		switch f.name {
		case "":
			end()
		case "final-recipient":
			if named && one.Address != "" { // some servers leave out the empty line
				end()
			}
			one.Address, named = address(f.value), true
		case "original-recipient":
			one.Original, named = address(f.value), true
		case "action":
			one.Action = f.value
		case "status":
			one.Status = f.value
		case "diagnostic-code":
			one.Diagnostic = typed(f.value)
		}
	}
	end()
}

// readFeedback reads a message/feedback-report (RFC 5965 §3).
func (r *Report) readFeedback(body io.Reader) {
	kind := "abuse"
	var to []string
	for _, f := range fields(body) {
		switch f.name {
		case "feedback-type":
			kind = strings.ToLower(firstWord(plain(f.value)))
		case "original-rcpt-to", "removal-recipient":
			if a := address(f.value); a != "" {
				to = append(to, a)
			}
		case "original-mail-from":
			r.addSender(address(f.value))
		}
	}
	if len(to) == 0 {
		to = []string{""} // providers hide whom they tell of
	}
	for _, a := range to[:min(len(to), mostRecipients)] {
		r.Recipients = append(r.Recipients, Recipient{Address: a, Action: "complaint", Status: kind})
	}
}

// typed is a value without its type: smtp; 550 5.1.1 no such user.
func typed(s string) string {
	if kind, rest, ok := strings.Cut(s, ";"); ok && !strings.ContainsAny(strings.TrimSpace(kind), " \t") {
		return strings.TrimSpace(rest)
	}
	return s
}

// address is one as reports write it: rfc822; kim@example.com, with or without the type and angle brackets. Empty: it is none.
func address(s string) string {
	s = typed(s)
	if begin := strings.IndexByte(s, '<'); begin >= 0 {
		if end := strings.IndexByte(s[begin:], '>'); end >= 0 {
			s = s[begin+1 : begin+end]
		}
	}
	s = strings.TrimSpace(s)
	if len(s) > 320 || !strings.Contains(s, "@") || strings.ContainsAny(s, " \t") || plain(s) != s {
		return ""
	}
	return s
}
