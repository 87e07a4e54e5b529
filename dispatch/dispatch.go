package dispatch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"postman/outbox"
	"postman/rules"
)

// What may be in memory, claimed, and waiting. The store is the buffer; this only bridges the time of its commits. Messages
// that wait are few, so that one of high priority is claimed soon after it was queued.
const (
	mostMatches  = 256
	mostMessages = 4 // for each lane
)

// leaseFor is how long after it became `sending` a message's dot may be begun.
const leaseFor = time.Minute

// How long Run goes on after its context ended.
const (
	drainFor  = 30 * time.Second // for conversations in hand
	recordFor = 10 * time.Second // for their outcomes, after that
)

// Dispatcher expands matches and sends messages. Safe for many goroutines.
type Dispatcher struct {
	o          Options
	composer   *composer
	transports []*transport // by preference; those that are only used by name come last
	shapes     shapes

	tasks    *desk
	outcomes chan outcome
	deaths   deaths
	wake     chan struct{} // the feeder is to look at the store
	aborted  chan struct{}
	abort    sync.Once
	sending  sync.WaitGroup // conversations

	storeUp state // the store takes what it is given
	asked   state // the database can be asked
	seen    state // commits become visible to look-ups in time

	mu      sync.Mutex
	running bool
	matches int  // claimed matches: waiting, in work, parked
	backlog bool // the store may hold more that is due
	parked  map[*task]*time.Timer
}

// task is a claimed match to expand, or claimed messages of one match to render.
type task struct {
	match    outbox.Match
	messages []outbox.Message
	via      *transport // of messages
	ahead    *ahead     // the match is not in the store yet; nil: it is
	placed   bool       // it has a place of the desk's,
	rule     uint32     // as one of this rule
	tries    int        // look-ups that came too early or found no database
	since    time.Time  // of the first of these
}

func (t *task) priority() outbox.Priority {
	if len(t.messages) > 0 {
		return t.messages[0].Priority
	}
	return t.match.Priority
}

func (t *task) ruleName() string {
	if len(t.messages) > 0 {
		return t.messages[0].RuleName
	}
	return t.match.RuleName
}

func (t *task) ruleID() uint32 {
	if len(t.messages) > 0 {
		return t.messages[0].Rule
	}
	return t.match.Rule
}

// job is a message whose bytes are there: from now on it is between the store and the relay.
type job struct {
	message outbox.Message
	letter  letter // body empty: the store keeps the bytes of an earlier attempt, and message.Body has them
	lease   time.Time
	via     *transport
	place   string // that it has at the gate, see gate.place

	envelope envelope
	body     []byte         // as it goes to the relay
	last     bool           // no attempt comes after this one
	carry    func(*session) // has it said over a session, or over a new one; nil before [lanes.give]
}

// outcome is an outcome on its way into the store.
type outcome struct {
	message outbox.Message
	outbox.Outcome
}

// New checks the options. Nothing happens before Run.
func New(o Options) (*Dispatcher, error) {
	o.defaults()
	c, err := o.check()
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{
		o: o, composer: c, outcomes: make(chan outcome, mostRecords),
		wake: make(chan struct{}, 1), aborted: make(chan struct{}), parked: make(map[*task]*time.Timer),
	}
	d.deaths.log = o.Log
	d.newTransports()
	d.tasks = newDesk(o.Lookup.Conns())
	d.shapes.store = o.Store
	return d, nil
}

// Run expands and sends until the context ends. Then it takes no more work, lets conversations in hand come to their end,
// within bounds, stores their outcomes and gives up what it had claimed. Abort cuts that short.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.countMonth(ctx); err != nil {
		return err
	}
	hard, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var background, workers, recorder sync.WaitGroup
	background.Go(func() {
		select {
		case <-d.aborted:
			cut()
		case <-hard.Done():
		}
	})
	recorder.Go(func() { d.record(hard) })
	d.setRunning(true)
	for range 2 * d.o.Lookup.Conns() { // one asks while another one's expansion is being stored
		workers.Go(func() { d.work(ctx, hard) })
	}
	workers.Go(func() { d.feed(ctx) })
	for _, via := range d.transports {
		workers.Go(func() { via.run(ctx, hard, d) })
		// It may be tried while conversations from before the trouble hang on all of its connections.
		workers.Go(func() {
			via.gate.probe(ctx, func(ctx context.Context) error { return via.lanes.warm(ctx, outbox.High) })
		})
		workers.Go(func() { d.warm(ctx, via) })
	}

	<-ctx.Done()
	d.setRunning(false)
	overdue := time.AfterFunc(drainFor, cut)
	workers.Wait()
	d.sending.Wait()
	overdue.Stop()
	close(d.outcomes)
	recorder.Wait()
	d.release()
	for _, via := range d.transports {
		via.lanes.close()
	}
	cut()
	background.Wait()
	return nil
}

// Abort has Run cut all conversations at once and end. What became of a dot that was begun stays unknown.
func (d *Dispatcher) Abort() { d.abort.Do(func() { close(d.aborted) }) }

// warm opens the lanes ahead of their first messages, and so tells early of a relay that does not answer.
func (d *Dispatcher) warm(ctx context.Context, via *transport) {
	if d.o.Mode == DryRun {
		return
	}
	for range via.gate.connections(outbox.Normal) {
		err := via.lanes.warm(ctx, outbox.Normal)
		if errors.Is(err, errFull) { // mails were faster
			return
		}
		if err != nil {
			if r := d.refused(ctx, via, err, via.lanes.count()); r != nil && ctx.Err() == nil {
				d.trouble(ctx, via, r.String())
			}
			return
		}
	}
}

func (d *Dispatcher) setRunning(running bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running = running
}

// Room is how many more matches would be taken in memory now.
func (d *Dispatcher) Room() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.running {
		return 0
	}
	return max(0, mostMatches-d.matches)
}

// Take takes matches that were claimed for this process, as Append returns them. What there is no room for goes back to the
// store, which has it anyway.
func (d *Dispatcher) Take(ms []outbox.Match) {
	if len(ms) == 0 {
		return
	}
	d.mu.Lock()
	n := min(len(ms), mostMatches-d.matches)
	if !d.running || n < 0 {
		n = 0
	}
	d.matches += n
	for _, m := range ms[:n] {
		d.tasks.push(&task{match: m}) // under the lock: release must not come in between
	}
	d.mu.Unlock()
	if n < len(ms) {
		over := make([]int64, 0, len(ms)-n)
		for _, m := range ms[n:] {
			over = append(over, m.ID)
		}
		d.o.Store.Release(over, nil)
		d.Wake()
	}
}

// Wake says that something changed in the store.
func (d *Dispatcher) Wake() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pointers are those to the elements of a list.
func pointers[T any](list []T) []*T {
	all := make([]*T, len(list))
	for i := range list {
		all[i] = &list[i]
	}
	return all
}

// finished notes that a task is no longer in memory.
func (d *Dispatcher) finished(t *task) {
	d.mu.Lock()
	if t.via == nil { // else it is of messages
		d.matches--
	}
	more := d.backlog && d.matches <= mostMatches/2
	d.mu.Unlock()
	if more {
		d.Wake()
	}
}

// left notes that messages were started or given up.
func (d *Dispatcher) left(via *transport, messages ...*outbox.Message) {
	d.mu.Lock()
	more := false
	for _, m := range messages {
		calls := via.room.leave(m.Priority, via.gate.place(m.Address))
		more = more || calls || d.backlog && m.Priority == outbox.High
	}
	more = more || d.backlog && via.room.all <= via.most()/2
	d.mu.Unlock()
	if more {
		d.Wake()
	}
}

// park puts a task aside for a while. Its claim stays.
func (d *Dispatcher) park(t *task, delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parked[t] = time.AfterFunc(delay, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if _, still := d.parked[t]; still {
			delete(d.parked, t)
			d.tasks.push(t)
		}
	})
}

// release gives up all claims that are left when Run ends.
func (d *Dispatcher) release() {
	d.mu.Lock()
	left := d.tasks.drain()
	for t, timer := range d.parked {
		timer.Stop()
		left = append(left, t)
	}
	clear(d.parked)
	d.mu.Unlock()
	for _, t := range left {
		if t.landed() && t.await() { // else it holds no claim
			d.giveBack(t)
		}
	}
	for _, via := range d.transports {
		d.turnAway(via, false)
	}
}

// giveBack gives up a task's claims.
func (d *Dispatcher) giveBack(t *task) {
	if len(t.messages) == 0 {
		d.o.Store.Release([]int64{t.match.ID}, nil)
	} else {
		ids := make([]int64, len(t.messages))
		for i, m := range t.messages {
			ids[i] = m.ID
		}
		d.o.Store.Release(nil, ids)
		d.left(t.via, pointers(t.messages)...)
	}
	d.finished(t)
}

// Status says how sending goes.
type Status struct {
	RelayStatus               // of the relay that mails take by preference
	Relays      []RelayStatus `json:"-"`        // all of them
	Matches     int           `json:"matches"`  // in memory
	Messages    int           `json:"messages"` // in memory, waiting for a connection
	LookupError string        `json:"lookup_error,omitempty"`
	LookupSince time.Time     `json:"lookup_since,omitzero"`
}

// RelayStatus says how a relay does.
type RelayStatus struct {
	Name        string     `json:"name,omitempty"`
	Address     string     `json:"address"`
	State       RelayState `json:"state"`
	Since       time.Time  `json:"since"` // of State; up and probing count as one
	LastError   string     `json:"last_error,omitempty"`
	Refused     int        `json:"refused"`           // mails in a row that it refused with 5xx since it took one
	Refusal     string     `json:"refusal,omitempty"` // its words to the last of these
	Denies      bool       `json:"denies,omitzero"`   // it refused two in a row by a policy, and took none since
	Paused      time.Time  `json:"paused,omitzero"`   // it throttles: nothing is sent over it before
	Most        int        `json:"max_connections"`   // as configured
	Takes       int        `json:"takes"`             // connections that it is given mails over, of these
	Connections int        `json:"connections"`       // that are open
	InFlight    int        `json:"in_flight"`         // messages that have a connection, or are ready to
	Rate        Rate       `json:"rate,omitzero"`
	Month       string     `json:"month,omitempty"` // with Quota
	Used        int64      `json:"used"`            // mails of the month
	Quota       int64      `json:"quota,omitempty"`
}

// mostRefused is how many mails in a row a relay refuses because of their recipients, and no sooner for a reason of its own.
const mostRefused = 10

// Up says whether the relay takes mail.
func (r *RelayStatus) Up() bool { return r.State == RelayUp }

// Probing says whether the relay answers again after trouble, and has not taken a mail since.
func (r *RelayStatus) Probing() bool { return r.State == RelayProbing }

// Trouble says what is wrong with a relay, for a person; empty: nothing.
func (r *RelayStatus) Trouble() string {
	name := "the relay"
	if r.Name != "" {
		name += " " + r.Name
	}
	switch {
	case r.State == RelayDown:
		return name + " is down: " + r.LastError
	case !r.Paused.IsZero():
		return fmt.Sprintf("%s throttles, and is left alone until %s: %s", name, r.Paused.Format(time.TimeOnly), r.LastError)
	case r.Refused >= mostRefused || r.Denies:
		return fmt.Sprintf("%s took none of the last %d mails: %s", name, r.Refused, r.Refusal)
	case r.Quota > 0 && r.Used >= r.Quota:
		return fmt.Sprintf("%s has taken all %d mails of the month: nothing is sent over it until the next", name, r.Quota)
	case r.Quota > 0 && r.Used >= r.Quota-int64(reservedShare*float64(r.Quota)):
		return fmt.Sprintf("%s has taken %d of the month's %d mails: the rest is for those of high priority", name, r.Used, r.Quota)
	}
	return ""
}

// Status says how sending goes now.
func (d *Dispatcher) Status() Status {
	var s Status
	for _, via := range d.transports {
		r := RelayStatus{Name: via.relay.Name, Address: via.relay.address(), Most: via.relay.Limits.Connections, Connections: via.lanes.count(), Rate: via.relay.Limits.Rate}
		via.gate.describe(&r)
		s.Relays = append(s.Relays, r)
	}
	s.RelayStatus = s.Relays[0]
	if since, err := d.o.Lookup.Down(); err != nil {
		s.LookupError, s.LookupSince = err.Error(), since
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Matches = d.matches
	for _, via := range d.transports {
		s.Messages += via.room.all + via.room.away
	}
	return s
}

// shapes keeps the shapes of tables that matches were stored with: what a hash stands for never changes.
type shapes struct {
	store interface {
		Text(ctx context.Context, h outbox.Hash) ([]byte, error)
	}
	mu    sync.Mutex
	known map[outbox.Hash]*rules.Shape
}

// mostShapes bounds the cache; a database has fewer watched tables.
const mostShapes = 256

func (c *shapes) get(ctx context.Context, h outbox.Hash) (*rules.Shape, error) {
	if h == (outbox.Hash{}) {
		return nil, nil // a message has no table
	}
	c.mu.Lock()
	known, ok := c.known[h]
	c.mu.Unlock()
	if ok {
		return known, nil
	}
	text, err := c.store.Text(ctx, h)
	if err != nil && !errors.Is(err, outbox.ErrNotFound) {
		err = &askError{kind: busy, err: err} // the store's trouble of the moment
	}
	if err != nil {
		return nil, err
	}
	shape, err := rules.ReadShape(text)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= mostShapes {
		c.known = make(map[outbox.Hash]*rules.Shape)
	}
	c.known[h] = shape
	return shape, nil
}

// state tells when something that had worked stops working, and when it works again: one line each, however often it is met.
type state struct {
	mu   sync.Mutex
	bad  bool
	from time.Time
}

// failed says whether that is news.
func (s *state) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := !s.bad
	if news {
		s.bad, s.from = true, time.Now()
	}
	return news
}

// worked says whether that is news, and how long it did not.
func (s *state) worked() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.bad
	s.bad = false
	return time.Since(s.from), news
}

// Facts reads a match's change.
func (d *Dispatcher) Facts(ctx context.Context, m *outbox.Match) (*rules.Facts, error) {
	shape, err := d.shapes.get(ctx, m.Shape)
	if err != nil {
		return nil, fmt.Errorf("reading the table's shape: %w", err)
	}
	f, err := shape.Facts(m.Change)
	if err != nil {
		return nil, err
	}
	f.Position, f.CommitTime, f.XID = m.Position, m.Tx.Time, m.Tx.XID
	return f, nil
}
