package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"postman/bounce"
	"postman/dispatch"
	"postman/outbox"
)

// SoftBounces says when an address is given up to which mails bounce that are not its fault for sure: on Days different days Within a time.
type SoftBounces struct {
	Days   int  `yaml:"days"`
	Within Span `yaml:"within"`
}

func (s SoftBounces) limit() outbox.SoftLimit {
	return outbox.SoftLimit{Days: s.Days, Within: time.Duration(s.Within)}
}

// BouncesView says what came of a report.
type BouncesView struct {
	Message int64         `json:"message,omitempty"` // that it is about
	Ignored string        `json:"ignored,omitempty"` // why nothing was done at all
	Bounces []BounceTaken `json:"bounces"`
}

// BounceTaken is what came of what a report says of one recipient.
type BounceTaken struct {
	Address    string `json:"address,omitempty"`
	Kind       string `json:"kind"` // hard, soft, blocked, complaint, unsubscribe; fine: it arrived
	Status     string `json:"status,omitempty"`
	Text       string `json:"text"`
	Suppressed bool   `json:"suppressed"`
	Note       string `json:"note,omitempty"` // what there is to say of it, for a person
}

// BounceView is what came back of a message.
type BounceView struct {
	Address string            `json:"address,omitempty"`
	Kind    outbox.BounceKind `json:"kind"`
	Status  string            `json:"status,omitempty"`
	Text    string            `json:"text"`
	Source  string            `json:"source"`
	At      time.Time         `json:"at"`
}

// teller is who says what came back.
type teller struct {
	name string // for people
	// proved: nobody else can say it. What it tells of an address is believed, whichever mail it is about, and although that mail be none of ours.
	proved bool
}

// cameBack is what came back, and of which message.
type cameBack struct {
	*bounce.Report
	teller
	message outbox.Message
	signed  bool // the report has what we signed
}

// takeBounces takes a report that `postman bounce` has read.
func (a *api) takeBounces(w http.ResponseWriter, r *http.Request) {
	var report bounce.Report
	err := readJSON(r, &report, mostOrdered, "a report")
	view := BouncesView{Bounces: []BounceTaken{}}
	if err == nil {
		err = a.takeReport(r.Context(), &report, teller{name: "a report"}, &view)
	}
	reply(w, view, err)
}

// takeReport does what a report asks for. All of it is durable when it returns.
func (a *api) takeReport(ctx context.Context, report *bounce.Report, by teller, view *BouncesView) (err error) {
	if view.Ignored = report.Not; view.Ignored != "" {
		return nil
	}
	t := &cameBack{Report: report, teller: by}
	t.message, t.signed, err = a.reported(ctx, report)
	switch unknown := errors.Is(err, outbox.ErrNotFound); {
	case unknown && !by.proved:
		view.Ignored = "it is about no mail of this store"
		return nil
	case err != nil && !unknown:
		return err
	}
	view.Message = t.message.ID
	for i := range report.Recipients {
		taken, err := a.takeRecipient(ctx, t, &report.Recipients[i])
		if err != nil {
			return err
		}
		view.Bounces = append(view.Bounces, taken)
	}
	return nil
}

// reported finds the message that a report is about: by an envelope sender that we signed, or else by its Message-ID, which more people know.
func (a *api) reported(ctx context.Context, report *bounce.Report) (m outbox.Message, signed bool, err error) {
	for _, s := range report.Senders {
		id, ok := bounce.Message(a.store.Secret(), s)
		if !ok {
			continue
		}
		found, err := a.store.Messages(ctx, outbox.Filter{Messages: []int64{id}})
		if err != nil {
			return m, false, err
		}
		if len(found) > 0 {
			return found[0], true, nil
		}
	}
	at, ordinal, ok := dispatch.PlaceOf(a.store.ID(), report.MessageID)
	if !ok {
		return m, false, outbox.ErrNotFound
	}
	m, err = a.store.Find(ctx, at, ordinal, report.MessageID)
	return m, false, err
}

// wentTo are the addresses that a message went to.
func wentTo(m *outbox.Message) []string {
	if m.ID == 0 {
		return nil // it is none of ours
	}
	if m.Redirected != "" {
		return []string{m.Redirected}
	}
	all := []string{m.Address}
	for _, c := range m.CC {
		all = append(all, wireAddress(c))
	}
	return all
}

// atFault is the address that a report speaks of; empty: it cannot be told which.
func (t *cameBack) atFault(r *bounce.Recipient) string {
	went := wentTo(&t.message)
	for _, named := range []string{r.Address, r.Original} {
		key := outbox.AddressKey(wireAddress(named))
		if i := slices.IndexFunc(went, func(a string) bool { return outbox.AddressKey(a) == key }); i >= 0 {
			return went[i]
		}
	}
	switch {
	case t.proved:
		return wireAddress(r.Address)
	case t.signed && len(went) == 1: // it was forwarded, and the last address is another one
		return went[0]
	}
	return ""
}

// takenBefore is the note on what came a second time.
const takenBefore = "it was taken before"

// kinds are what the classes of a report are in the outbox.
var kinds = map[bounce.Class]outbox.BounceKind{
	bounce.Hard: outbox.BounceHard, bounce.Soft: outbox.BounceSoft, bounce.Blocked: outbox.BounceBlocked, bounce.Complaint: outbox.BounceComplaint,
	bounce.Unsubscribe: outbox.BounceUnsubscribe,
}

func (a *api) takeRecipient(ctx context.Context, t *cameBack, r *bounce.Recipient) (BounceTaken, error) {
	class := r.Class()
	taken := BounceTaken{Address: t.atFault(r), Kind: string(class), Status: r.Status, Text: r.String()}
	kind, bad := kinds[class]
	switch {
	case !bad:
		taken.Note = "nothing is wrong"
		return taken, nil
	case taken.Address == "" && !t.signed:
		taken.Note = "nothing was changed: nothing in the report is signed, and the mail did not go to whom it names"
		return taken, nil
	case taken.Address == "":
		taken.Note = "nobody was suppressed: the mail did not go to whom the report names, and it has copies"
	}
	text, err := json.Marshal([]any{t.ID, t.message.ID, r})
	if err != nil {
		return taken, err
	}
	done, err := a.store.SaveBounce(ctx, outbox.Bounce{
		Event: outbox.HashOf(text), Message: t.message.ID, Address: taken.Address, Kind: kind, Status: r.Status, Text: taken.Text, Source: t.name, At: time.Now(),
	}, a.soft)
	taken.Suppressed = done.Suppressed != nil
	switch {
	case done.Known:
		taken.Note = takenBefore
	case done.Days > 0 && !taken.Suppressed:
		taken.Note = fmt.Sprintf("soft bounces on %s; it is suppressed after %d", counted(done.Days, "day", "days"), a.soft.Days)
	case kind == outbox.BounceUnsubscribe:
		taken.Note = "it is kept, and stops no mail"
	}
	return taken, err
}

// bounces lists what came back of a message.
func (a *api) bounces(ctx context.Context, message int64) ([]BounceView, error) {
	found, err := a.store.Bounces(ctx, message)
	views := make([]BounceView, len(found))
	for i, b := range found {
		views[i] = BounceView{Address: b.Address, Kind: b.Kind, Status: b.Status, Text: strings.TrimSpace(b.Text), Source: b.Source, At: b.At}
	}
	return views, err
}
