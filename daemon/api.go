package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postman/outbox"
	"postman/outbox/sqlite"
	"postman/rules"
)

// The operators' interface: JSON over HTTP, on a socket beside the store that only its owner can open. The commands use it
// while a daemon runs; when none does, they serve it to themselves from the store. Field names are a contract
// (docs/cli.md).

// MessageView is a message as operators see it. It never holds a body or a recipient's row.
type MessageView struct {
	ID       int64               `json:"id"`
	Match    int64               `json:"match"`
	Rule     string              `json:"rule"`
	Position string              `json:"position"`
	Address  string              `json:"address"`
	CC       []string            `json:"cc,omitempty"`
	State    outbox.MessageState `json:"state"`
	Reason   string              `json:"reason,omitempty"`
	Reply    string              `json:"reply,omitempty"`
	// Redirected is where its last attempt took the mail, in mode redirect, instead of to Address and CC.
	Redirected string    `json:"redirected,omitempty"`
	Replay     int64     `json:"replay,omitempty"` // the replay that sends it once more
	Subject    string    `json:"subject,omitempty"`
	MessageID  string    `json:"message_id,omitempty"`
	Attempts   int       `json:"attempts"`
	Due        time.Time `json:"due,omitzero"`
	Committed  time.Time `json:"committed,omitzero"`
	Created    time.Time `json:"created,omitzero"`
	Finished   time.Time `json:"finished,omitzero"`
}

// MatchView is a match as operators see it. It never holds the change's values.
type MatchView struct {
	ID        int64             `json:"id"`
	Rule      string            `json:"rule"`
	Version   string            `json:"version"`
	Position  string            `json:"position"`
	Op        string            `json:"op"`
	XID       uint32            `json:"xid"`
	State     outbox.MatchState `json:"state"`
	Reason    string            `json:"reason,omitempty"`
	Attempts  int               `json:"attempts"`
	Due       time.Time         `json:"due,omitzero"`
	Committed time.Time         `json:"committed,omitzero"`
	Batch     int64             `json:"batch,omitempty"`  // that it is held in, or was
	Replay    int64             `json:"replay,omitempty"` // the replay that made it, or took it up again
}

// AttemptView is one conversation with a relay.
type AttemptView struct {
	Relay    string    `json:"relay"`
	Started  time.Time `json:"started"`
	Took     float64   `json:"took_ms"`
	Code     int       `json:"code,omitempty"`
	Enhanced string    `json:"enhanced,omitempty"`
	Text     string    `json:"text"`
	// Redirected is where it took the mail instead of to its recipients.
	Redirected string `json:"redirected,omitempty"`
}

// Standing is the message's state and, where its mail went elsewhere, that too, for a person.
func (m *MessageView) Standing() string {
	if m.Redirected != "" && m.State == outbox.MessageSent {
		return m.State.String() + ", redirected to " + m.Redirected
	}
	return m.State.String()
}

// NotSent says whether the delivery mode kept the mail from going out.
func (m *MessageView) NotSent() bool { return m.State == outbox.MessageNotSent }

// ListView is what `outbox list` prints. What waits in a batch is there as that, and not match by match.
type ListView struct {
	Batches  []HeldView    `json:"batches"`
	Messages []MessageView `json:"messages"`
	Matches  []MatchView   `json:"matches"`
}

// ShowView is what `outbox show` prints: a match, its messages, and the attempts of the one that was asked for.
type ShowView struct {
	Match    MatchView     `json:"match"`
	Messages []MessageView `json:"messages"`
	Attempts []AttemptView `json:"attempts"`
	Replays  []ReplayView  `json:"replays,omitempty"` // that made the match, or its messages
	Mail     *MailView     `json:"mail,omitempty"`    // of the message that was asked for, while its bytes are kept
	Bounces  []BounceView  `json:"bounces,omitempty"` // what came back of the message that was asked for
}

// Selection is what a list or an action applies to. All that is given must hold.
type Selection struct {
	Messages []int64  `json:"messages,omitempty"`
	Matches  []int64  `json:"matches,omitempty"`
	Batches  []int64  `json:"batches,omitempty"` // of an action: they go alone, and one by one
	Rule     string   `json:"rule,omitempty"`
	States   []string `json:"states,omitempty"`
	Address  string   `json:"address,omitempty"`
	Since    string   `json:"since,omitempty"` // that came into the outbox then or later: 2h, 7d, or a time
	Until    string   `json:"until,omitempty"` // and before
	Error    string   `json:"error,omitempty"` // whose reason, or the relay's last words, have this in them
	Before   int64    `json:"before,omitempty"`
	Limit    int      `json:"limit,omitempty"`
	Reason   string   `json:"reason,omitempty"` // of an action
}

// ActedView says how many an action moved.
type ActedView struct {
	Messages int `json:"messages"`
	Matches  int `json:"matches"`
}

type failure struct {
	Error string `json:"error"`
}

// handler serves the operators' interface.
func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", a.getStatus)
	mux.HandleFunc("POST /v1/outbox/list", a.list)
	mux.HandleFunc("GET /v1/outbox/messages/{id}", a.showMessage)
	mux.HandleFunc("GET /v1/outbox/matches/{id}", a.showMatch)
	mux.HandleFunc("GET /v1/outbox/batches/{id}", a.showBatch)
	mux.HandleFunc("POST /v1/outbox/{action}", a.act)
	mux.HandleFunc("POST /v1/outbox/{action}/affected", a.affected)
	mux.HandleFunc("POST /v1/send-test", a.sendTest)
	mux.HandleFunc("POST /v1/suppressions/list", a.listSuppressions)
	mux.HandleFunc("POST /v1/suppressions", a.suppress)
	mux.HandleFunc("POST /v1/bounces", a.takeBounces)
	mux.HandleFunc("POST /v1/suppressions/lift", a.unsuppress)
	mux.HandleFunc("POST /v1/replay/plan", a.planReplay)
	mux.HandleFunc("POST /v1/replay", a.replay)
	mux.HandleFunc("POST /v1/gaps/accept", a.acceptGaps)
	mux.HandleFunc("GET /v1/explain/messages/{id}", a.explainMessage)
	mux.HandleFunc("GET /v1/explain/matches/{id}", a.explainMatch)
	return mux
}

// ErrLocked says that the store is somebody else's.
var ErrLocked = outbox.ErrLocked

// OpenAPI opens a store that no daemon owns, and serves the operators' interface from it until it is closed.
func OpenAPI(ctx context.Context, c Config) (h http.Handler, closeStore func() error, err error) {
	store, err := sqlite.Open(c.StorePath(), sqlite.Options{}) //nolint:contextcheck // its writer outlives the call
	if err != nil {
		return nil, nil, fmt.Errorf("opening the store: %w", err)
	}
	a := &api{config: &c, store: store, acting: new(sync.Mutex), soft: c.SoftBounces.limit(), status: func() Status {
		s := StoreStatus(ctx, store)
		s.Slot = slotNow(ctx, c)
		return s
	}}
	a.replayer = func(ctx context.Context) (*replayer, func(), error) { return openReplayer(ctx, &c, store) }
	return a.handler(), store.Close, nil
}

type api struct {
	config   *Config
	store    outbox.Store
	soft     outbox.SoftLimit
	status   func() Status
	acted    func()                                                          // is called after something moved; nil: nobody needs to know
	replayer func(context.Context) (_ *replayer, done func(), err error)     // who carries replays out
	sampler  func(context.Context, *outbox.HeldBatch) ([]HeldSample, string) // makes some of a batch's mails; nil: nobody can
	acting   *sync.Mutex                                                     // one works on batches at a time, so that who ordered it is told all that it moved
	ends     <-chan struct{}                                                 // closed when nothing more is to be begun; nil: never
}

func (a *api) getStatus(w http.ResponseWriter, _ *http.Request) { reply(w, a.status(), nil) }

// mostListed bounds a list, and usualListed is how long one is when nobody says.
const (
	mostListed  = 1000
	usualListed = 50
)

// list leaves out matches that became messages, unless their state is asked for: their messages tell.
func (a *api) list(w http.ResponseWriter, r *http.Request) {
	sel, f, err := selection(r)
	if err == nil {
		err = a.knownRule(r.Context(), sel.Rule)
	}
	if f.Limit <= 0 {
		f.Limit = usualListed
	}
	f.Limit = min(f.Limit, mostListed)
	view := ListView{Batches: []HeldView{}, Messages: []MessageView{}, Matches: []MatchView{}}
	asked := len(f.MessageStates)+len(f.MatchStates) > 0
	if f.Apart = len(f.Batches) == 0; err == nil && f.Apart && f.Address+sel.Error+sel.Since+sel.Until == "" && f.Before == 0 && (!asked || slices.Contains(f.MatchStates, outbox.MatchHeld)) {
		view.Batches, err = a.batches(r.Context(), sel.Rule)
	}
	if err == nil && f.Apart && (!asked || len(f.MessageStates) > 0) {
		view.Messages, err = a.messages(r, f)
	}
	if err == nil && (!asked || len(f.MatchStates) > 0) && f.Address == "" {
		if !asked && f.Apart {
			f.MatchStates = slices.DeleteFunc(outbox.MatchStates(), func(s outbox.MatchState) bool { return s == outbox.MatchExpanded })
		}
		view.Matches, err = a.matches(r, f)
	}
	reply(w, view, err)
}

func (a *api) messages(r *http.Request, f outbox.Filter) ([]MessageView, error) {
	found, err := a.store.Messages(r.Context(), f)
	views := make([]MessageView, len(found))
	for i := range found {
		views[i] = viewMessage(&found[i])
	}
	return views, err
}

func (a *api) matches(r *http.Request, f outbox.Filter) ([]MatchView, error) {
	found, err := a.store.Matches(r.Context(), f)
	views := make([]MatchView, len(found))
	for i := range found {
		views[i] = viewMatch(&found[i])
	}
	return views, err
}

func (a *api) showMessage(w http.ResponseWriter, r *http.Request) {
	var mail *MailView
	view, err := a.show(r, func(id int64) (int64, error) { //nolint:contextcheck // the request has it
		found, err := a.store.Messages(r.Context(), outbox.Filter{Messages: []int64{id}})
		if err != nil || len(found) == 0 {
			return 0, notFound(err)
		}
		mail, err = mailOf(&found[0])
		return found[0].Match, err
	})
	if err == nil {
		view.Mail = mail
		id, _ := strconv.ParseInt(r.PathValue("id"), 10, 64)
		if view.Attempts, err = a.attempts(r.Context(), id); err == nil {
			view.Bounces, err = a.bounces(r.Context(), id)
		}
	}
	reply(w, view, err)
}

func (a *api) showMatch(w http.ResponseWriter, r *http.Request) {
	view, err := a.show(r, func(id int64) (int64, error) { return id, nil })
	reply(w, view, err)
}

func (a *api) show(r *http.Request, match func(int64) (int64, error)) (ShowView, error) {
	view := ShowView{Messages: []MessageView{}, Attempts: []AttemptView{}}
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil {
		return view, badRequest{"the id is no number"}
	}
	if id, err = match(id); err != nil {
		return view, err
	}
	matches, err := a.matches(r, outbox.Filter{Matches: []int64{id}})
	if err != nil || len(matches) == 0 {
		return view, notFound(err)
	}
	view.Match = matches[0]
	if view.Messages, err = a.messages(r, outbox.Filter{Matches: []int64{id}, Limit: 1000}); err == nil {
		view.Replays, err = a.replaysOf(r.Context(), &view)
	}
	return view, err
}

func notFound(err error) error {
	if err != nil {
		return err
	}
	return outbox.ErrNotFound
}

// mostWrong is how many that cannot be taken are named.
const mostWrong = 10

// fits refuses an action on matches and messages that are named by their ids and are in no state that it takes from. Nobody should
// believe that something was done.
func (a *api) fits(ctx context.Context, action outbox.Action, f *outbox.Filter) error {
	if len(f.Batches) > 0 {
		return a.fitsBatches(ctx, action, f.Batches)
	}
	var wrong []string
	fromMatches, fromMessages := action.From()
	for _, id := range f.Messages {
		found, err := a.store.Messages(ctx, outbox.Filter{Messages: []int64{id}})
		switch {
		case err != nil:
			return err
		case len(found) == 0:
			wrong = append(wrong, fmt.Sprintf("there is no message %d", id))
		case !slices.Contains(fromMessages, found[0].State):
			wrong = append(wrong, fmt.Sprintf("message %d is %s%s%s", id, found[0].State, because(found[0].Reason), wayOut(&found[0])))
		}
	}
	for _, id := range f.Matches {
		found, err := a.store.Matches(ctx, outbox.Filter{Matches: []int64{id}})
		if err != nil {
			return err
		}
		messages, err := a.store.Messages(ctx, outbox.Filter{Matches: []int64{id}, MessageStates: fromMessages, Limit: 1})
		switch {
		case err != nil:
			return err
		case len(found) == 0:
			wrong = append(wrong, fmt.Sprintf("there is no match m%d", id))
		case !slices.Contains(fromMatches, found[0].State) && len(messages) == 0:
			wrong = append(wrong, fmt.Sprintf("match m%d is %s%s, and none of its messages can be taken", id, found[0].State, because(found[0].Reason)))
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	if more := len(wrong) - mostWrong; more > 0 {
		wrong = append(wrong[:mostWrong], "and "+Grouped(int64(more))+" more")
	}
	return badRequest{fmt.Sprintf("%s\n  → %s takes matches that are %s and messages that are %s; nothing was changed",
		strings.Join(wrong, "\n"), action, stateNames(fromMatches), stateNames(fromMessages))}
}

// stateNames are the names of states, for a person.
func stateNames[S fmt.Stringer](states []S) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = s.String()
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " or " + names[n-1]
	}
	return strings.Join(names, "")
}

func (s *Selection) empty() bool {
	return len(s.Messages)+len(s.Matches)+len(s.Batches)+len(s.States) == 0 && s.Rule == "" && s.Address == "" && s.Error+s.Since+s.Until == ""
}

// selection reads a Selection and the filter it means. A state may be one of messages, of matches or of both.
func selection(r *http.Request) (sel Selection, f outbox.Filter, err error) {
	if err := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20)).Decode(&sel); err != nil {
		return sel, f, badRequest{"reading the selection: " + err.Error()}
	}
	f = outbox.Filter{
		Messages: sel.Messages, Matches: sel.Matches, Batches: sel.Batches, Address: sel.Address, Error: sel.Error, Before: sel.Before, Limit: sel.Limit,
	}
	if sel.Rule != "" {
		f.Rules = []string{sel.Rule}
	}
	if f.Since, err = sometime(sel.Since); err != nil {
		return sel, f, fmt.Errorf("since: %w", err)
	}
	if f.Until, err = sometime(sel.Until); err != nil {
		return sel, f, fmt.Errorf("until: %w", err)
	}
	for _, name := range sel.States {
		var message outbox.MessageState
		var match outbox.MatchState
		errMessage, errMatch := message.UnmarshalText([]byte(name)), match.UnmarshalText([]byte(name))
		if errMessage != nil && errMatch != nil {
			return sel, f, badRequest{fmt.Sprintf("there is no state %s%s\n  → a message can be %s; a match can be %s", name,
				nearState(name), stateNames(outbox.MessageStates()), stateNames(outbox.MatchStates()))}
		}
		if errMessage == nil {
			f.MessageStates = append(f.MessageStates, message)
		}
		if errMatch == nil {
			f.MatchStates = append(f.MatchStates, match)
		}
	}
	return sel, f, nil
}

// nearState asks whether a state was meant that is written nearly so.
func nearState(name string) string {
	var all []string
	for _, s := range outbox.MessageStates() {
		all = append(all, s.String())
	}
	for _, s := range outbox.MatchStates() {
		all = append(all, s.String())
	}
	return DidYouMean(name, all)
}

// DidYouMean asks for the nearest of what there is, as the end of a message: ": did you mean list?"; empty: nothing is near.
func DidYouMean(name string, all []string) string {
	if hint := rules.Nearest(name, all); hint != "" {
		return ": " + hint
	}
	return ""
}

// knownRule refuses the name of a rule that the store has nothing of.
func (a *api) knownRule(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	names, err := a.store.RuleNames(ctx)
	if err != nil || slices.Contains(names, name) {
		return err
	}
	return badRequest{fmt.Sprintf("the outbox knows no rule %s%s", name, DidYouMean(name, names))}
}

// badRequest is a mistake of the caller's.
type badRequest struct{ what string }

func (b badRequest) Error() string { return b.what }

func reply(w http.ResponseWriter, body any, err error) {
	status := http.StatusOK
	if err != nil {
		status, body = http.StatusInternalServerError, failure{err.Error()}
		if _, ok := errors.AsType[badRequest](err); ok {
			status = http.StatusBadRequest
		}
		if errors.Is(err, outbox.ErrNotFound) {
			status = http.StatusNotFound
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // Message-IDs are read by people, too
	encoder.Encode(body)         //nolint:errcheck // the client is gone; there is nobody to tell
}

func viewMessage(m *outbox.Message) MessageView {
	return MessageView{
		ID: m.ID, Match: m.Match, Rule: m.RuleName, Position: m.Position.String(), Address: m.Address, CC: m.CC,
		State: m.State, Reason: m.Reason, Reply: m.Reply, Redirected: m.Redirected, Replay: m.Replay, Subject: m.Subject, MessageID: m.MessageID, Attempts: m.Attempts,
		Due: m.Due, Committed: m.Committed, Created: m.Created, Finished: m.Finished,
	}
}

func viewMatch(m *outbox.Match) MatchView {
	return MatchView{
		ID: m.ID, Rule: m.RuleName, Version: shortHash(m.Version), Position: m.Position.String(), Op: m.Op, XID: m.Tx.XID,
		State: m.State, Reason: m.Reason, Attempts: m.Attempts, Due: m.Due, Committed: m.Tx.Time, Batch: m.Batch, Replay: m.Replay,
	}
}
