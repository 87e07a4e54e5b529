package bounce

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// mailjetEvent is what Mailjet's Event API says of one recipient of a mail (https://dev.mailjet.com/email/guides/webhooks/). It has no id.
type mailjetEvent struct {
	Event       loose `json:"event"`
	Time        loose `json:"time"`
	MessageID   loose `json:"MessageID"`
	MessageGUID loose `json:"Message_GUID"`
	Email       loose `json:"email"`
	CustomID    loose `json:"CustomID"`
	HardBounce  loose `json:"hard_bounce"` // the error is permanent
	RelatedTo   loose `json:"error_related_to"`
	Error       loose `json:"error"`
	Comment     loose `json:"comment"` // often what the server said
	Source      loose `json:"source"`  // of a complaint: the feedback loop
}

// loose is a text, number or truth value of JSON as a text: that a number comes as a text some day must not cost an address's complaint. What is
// none of these is empty.
type loose string

// UnmarshalJSON takes any value.
func (l *loose) UnmarshalJSON(text []byte) error {
	switch text[0] {
	case '"':
		return json.Unmarshal(text, (*string)(l))
	case '{', '[', 'n':
		*l = ""
	default:
		*l = loose(text)
	}
	return nil
}

// mailjetErrors are the errors of Mailjet's table that are not [Blocked], as they are where Mailjet calls them permanent. It writes "no mail host"
// of who did not answer, "typofix" of a domain that it takes for misspelt, and "preblocked" of an address that lately bounced or was refused for
// spam with anybody who sends over Mailjet: none of these is the address's fault for sure.
var mailjetErrors = map[string]Class{
	"user unknown": Hard, "mailbox inactive": Hard, "invalid domain": Hard,
	"quota exceeded": Soft, "no mail host": Soft, "typofix": Soft, "preblocked": Soft, "connection issue": Soft, greylisted: Soft,
	"spam reporter": Complaint, // who called an earlier mail of the account spam
}

// greylisted is an error that is none yet: Mailjet tries again.
const greylisted = "greylisted"

// ReadMailjet reads a call of Mailjet's event webhook: an event, or an array of them, whatever they are. Those that tell of nothing that came back
// (sent, open, click) make no report. Odd says of which events nothing can be made, and why; the error, that it is not JSON of that form, or the
// reader's. What was read before it is returned, too.
func ReadMailjet(from io.Reader) (reports []Report, odd []string, err error) {
	n := 0
	err = eachObject(from, func(decode func(any) error) error {
		var e mailjetEvent
		n++
		if err := decode(&e); err != nil {
			if _, ok := errors.AsType[*json.UnmarshalTypeError](err); !ok {
				return err
			}
			odd = addOdd(odd, n, "it is no object")
			return nil
		}
		r, why := e.report()
		switch {
		case why != "":
			odd = addOdd(odd, n, why)
		case r != nil:
			reports = append(reports, *r)
		}
		return nil
	})
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return reports, odd, err
}

// mostOdd bounds what is said of odd events, of which a call may have a million.
const mostOdd = 10

func addOdd(odd []string, n int, why string) []string {
	if len(odd) == mostOdd {
		return odd
	}
	return append(odd, fmt.Sprintf("event %d: %s", n, why))
}

// eachObject has each decode the value, or where it is an array, one after another of its values.
func eachObject(from io.Reader, each func(decode func(any) error) error) error {
	text, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if !bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("[")) {
		if err = each(d.Decode); err != nil {
			return err
		}
	} else {
		if _, err = d.Token(); err != nil {
			return err
		}
		for d.More() {
			if err = each(d.Decode); err != nil {
				return err
			}
		}
		if _, err = d.Token(); err != nil {
			return err
		}
	}
	if _, err = d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something behind its end")
	}
	return nil
}

// report is what an event says; nil: nothing came back. Why says why nothing can be made of it.
func (e *mailjetEvent) report() (r *Report, why string) {
	one := Recipient{Address: address(string(e.Email)), Action: "failed", Status: firstMatch(enhanced, string(e.Comment))}
	switch e.Event {
	case "sent", "open", "click":
		return nil, ""
	case "bounce", "blocked":
		if e.Error == greylisted && !e.permanent() {
			return nil, ""
		}
		one.Is, one.Diagnostic = e.class(), e.said()
	case "spam":
		one.Action, one.Status, one.Is, one.Diagnostic = "complaint", "abuse", Complaint, plain(string(e.Source))
	case "unsub":
		one.Action, one.Status, one.Is = "unsubscribe", "", Unsubscribe
	default:
		return nil, fmt.Sprintf("Mailjet has no event of the type %q that postman knows of", plain(string(e.Event)))
	}
	if one.Address == "" {
		return nil, string(e.Event) + ", and its email is no address"
	}
	return &Report{ID: e.id(), Recipients: []Recipient{one}, Senders: e.senders()}, ""
}

// id tells an event from others, and is the same when it comes again.
func (e *mailjetEvent) id() string {
	return plain(strings.Join([]string{"mailjet", string(e.Event), string(e.MessageID), string(e.MessageGUID), string(e.Time)}, " "))
}

func (e *mailjetEvent) senders() []string {
	if e.CustomID == "" {
		return nil
	}
	return []string{plain(string(e.CustomID))}
}

func (e *mailjetEvent) permanent() bool { return e.HardBounce == "true" || e.HardBounce == "1" }

// class is hard only for what Mailjet has just been told and calls permanent. What it blocks without trying, it does for something that it
// remembers, and that may be over.
func (e *mailjetEvent) class() Class {
	c, ok := mailjetErrors[string(e.Error)]
	switch {
	case !ok && (e.RelatedTo == "recipient" && e.Error != "blacklisted" || e.Error == ""):
		c = Soft
	case !ok: // policy, content, its own fault, or the account's exclusion list ("blacklisted")
		c = Blocked
	}
	if c == Hard && !e.permanent() {
		c = Soft
	}
	return c
}

// said is the error in Mailjet's words, and in the server's.
func (e *mailjetEvent) said() string {
	text := strings.Trim(string(e.RelatedTo)+": "+string(e.Error), ": ")
	if e.Event == "blocked" {
		text = "not tried, " + cmp.Or(text, "without a reason")
	}
	if e.Comment != "" {
		text = strings.Trim(text+": "+string(e.Comment), ": ")
	}
	return plain(text)
}
