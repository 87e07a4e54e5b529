package bounce

import (
	"cmp"
	"regexp"
	"strings"
	"unicode"
)

// Report is what a mail that came back says.
type Report struct {
	ID string `json:"id"` // its own Message-ID; empty: it has none
	// Not says what it is instead, for a person, where it is no report; the fields below are then empty.
	Not        string      `json:"not,omitempty"`
	Recipients []Recipient `json:"recipients,omitempty"`
	MessageID  string      `json:"message_id,omitempty"` // of the mail that it is about, with its angle brackets; empty: it does not say
	// Senders are the addresses that may be the mail's envelope sender: where the report was delivered to, and what it says of it.
	Senders []string `json:"senders,omitempty"`
}

// Recipient is what a report says of one.
type Recipient struct {
	Address    string `json:"address"`              // the last that was tried, which a forwarding may have changed; empty: it does not say
	Original   string `json:"original,omitempty"`   // as the sender gave it
	Action     string `json:"action"`               // failed, delayed, delivered, relayed or expanded (RFC 3464 §2.3.3); complaint
	Status     string `json:"status,omitempty"`     // 5.1.1 (RFC 3463); of a complaint its type, such as abuse
	Diagnostic string `json:"diagnostic,omitempty"` // what a server said, in one line
	Is         Class  `json:"is,omitempty"`         // what a provider calls it, whose words are no statuses; empty: Action and Status say
}

// Class is what a report means for a recipient's address.
type Class string

// The classes.
const (
	Hard      Class = "hard"      // there is no such mailbox or domain: no mail will ever arrive
	Soft      Class = "soft"      // it did not arrive, or has not yet, and the next one may
	Blocked   Class = "blocked"   // it was refused for what it is or where it came from: not the address's fault
	Complaint Class = "complaint" // its owner called the mail spam
	// Unsubscribe is a wish, and says nothing against the address: its owner wants no more of such mails.
	Unsubscribe Class = "unsubscribe"
	Fine        Class = "fine" // it arrived, or was handed on
)

// hard are the statuses that are the address's own fault (RFC 3463 §3). 5.4.4 is Postfix's for a domain that does not exist, 5.1.10 a domain
// that takes no mail (RFC 7505).
var hard = map[string]bool{
	"5.1.1": true, "5.1.2": true, "5.1.3": true, "5.1.6": true, "5.1.10": true, "5.2.1": true, "5.4.4": true,
}

// soft are the permanent statuses that may pass all the same: a full mailbox, a server that gave up, and those that say nothing (5.1.0 may be
// about the sender's address).
var soft = map[string]bool{"5.0.0": true, "5.1.0": true, "5.2.0": true, "5.2.2": true, "5.3.0": true, "5.3.1": true, "5.3.2": true}

// Class is what the report means for the address. docs/bounces.md has the table, with why.
func (r *Recipient) Class() Class {
	if r.Is != "" {
		return r.Is
	}
	switch r.Action {
	case "complaint":
		if r.Status == "not-spam" || r.Status == "auth-failure" || r.Status == "virus" || r.Status == "dmarc" {
			return Fine
		}
		return Complaint
	case "delivered", "relayed", "expanded":
		return Fine
	case "delayed":
		return Soft
	}
	switch {
	case strings.HasPrefix(r.Status, "2"):
		return Fine
	case strings.HasPrefix(r.Status, "4"):
		return Soft // a server gave up in the end
	case hard[r.Status]:
		return Hard
	case soft[r.Status], strings.HasPrefix(r.Status, "5.4."), r.Status == "":
		return Soft
	}
	return Blocked
}

// String is what was said, for a person.
func (r *Recipient) String() string {
	return strings.Join(strings.Fields(r.Action+" "+r.Status+" "+r.Diagnostic), " ")
}

// enhanced is a status as servers write it, behind a reply code or alone, and no part of an IP address.
var enhanced = regexp.MustCompile(`(?:^|[\s;#(-])([245]\.[0-9]{1,3}\.[0-9]{1,3})(?:\.?[^.\w]|\.?$)`)

// settle makes one of what several fields say. Some servers give a status without a meaning, and the one that they were told in the
// diagnostic.
func (r *Recipient) settle() {
	status := firstMatch(enhanced, r.Status)
	told := firstMatch(enhanced, r.Diagnostic)
	if told != "" && (status == "" || strings.HasSuffix(status, ".0.0") && told[0] == status[0]) {
		status = told
	}
	r.Status = status
	r.Action = strings.ToLower(strings.TrimSpace(firstWord(r.Action)))
	switch r.Action {
	case "failed", "delayed", "delivered", "relayed", "expanded":
	default: // old servers leave it out
		r.Action = map[bool]string{true: "failed", false: "delayed"}[status == "" || status[0] == '5']
		if strings.HasPrefix(status, "2") {
			r.Action = "delivered"
		}
	}
	r.Diagnostic = plain(r.Diagnostic)
}

func firstMatch(re *regexp.Regexp, s string) string {
	if m := re.FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return cmp.Or(word, s)
}

// mostText bounds what is kept of a server's words.
const mostText = 500

// plain is a text of somebody else's in one line that a terminal may show.
func plain(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r), unicode.IsControl(r):
			return ' '
		case !unicode.IsGraphic(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "�"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > mostText {
		s = strings.ToValidUTF8(s[:mostText], "") + "…"
	}
	return s
}
