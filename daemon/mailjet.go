package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"postman/bounce"
)

// mostEvents bounds a call of a webhook. Mailjet puts the events of one second into one: some nine thousand fit.
const mostEvents = 4 << 20

// eventsAtOnce is how many events are given to the store together, which commits what has gathered.
const eventsAtOnce = 32

// mailjetHook takes the calls of Mailjet's event webhook. Who calls is known by a password; nothing is read of a call without it. Mailjet calls again
// until it is answered 200, for a day: that is what it is answered once all that the call says is durable, or can never be.
type mailjetHook struct {
	auth            [sha256.Size]byte // of user:password; hashes are of one length, so that comparing them takes one time
	api             *api
	log             *slog.Logger
	report          *reporter
	refused, failed seldom
}

func newMailjetHook(auth Secret, a *api, log *slog.Logger, r *reporter) *mailjetHook {
	return &mailjetHook{auth: sha256.Sum256([]byte(auth)), api: a, log: log, report: r}
}

func (h *mailjetHook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !h.knows(r) {
		if more, ok := h.refused.again(time.Now()); ok {
			h.log.Warn("a call of Mailjet's webhook has not the right user and password", "from", r.RemoteAddr, "more_since_last_told", more)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="postman"`)
		http.Error(w, "user and password are needed", http.StatusUnauthorized)
		return
	}
	status, err := h.take(r.Context(), http.MaxBytesReader(w, r.Body, mostEvents))
	if err != nil && r.Context().Err() == nil { // else it hung up, or postman stops: it will call again
		if more, ok := h.failed.again(time.Now()); ok {
			h.report.report(r.Context(), fmt.Errorf("a call of Mailjet's webhook: %w (answered %d; %d more since this was last told)", err, status, more), "", "webhook")
		}
	}
	if status != http.StatusOK {
		http.Error(w, strings.ToLower(http.StatusText(status)), status)
	}
}

func (h *mailjetHook) knows(r *http.Request) bool {
	user, password, _ := r.BasicAuth()
	given := sha256.Sum256([]byte(user + ":" + password))
	return subtle.ConstantTimeCompare(given[:], h.auth[:]) == 1
}

// take does what a call says, and returns how it is to be answered. An event that nothing can be made of is an error that is answered 200: it would
// be the same the next time, and what comes behind it would wait.
func (h *mailjetHook) take(ctx context.Context, body io.Reader) (status int, err error) {
	reports, odd, err := bounce.ReadMailjet(body)
	if failed := h.store(ctx, reports); failed != nil { // what was read counts, however the rest is
		return http.StatusServiceUnavailable, fmt.Errorf("storing its events: %w", failed)
	}
	switch _, large := errors.AsType[*http.MaxBytesError](err); {
	case large:
		return http.StatusRequestEntityTooLarge, fmt.Errorf("it has more than %d MiB, and what it tells is not known", mostEvents>>20)
	case err != nil:
		return http.StatusBadRequest, fmt.Errorf("it cannot be read, and what it tells is not known: %w", err)
	case len(odd) > 0:
		return http.StatusOK, fmt.Errorf("of some events nothing can be made: %s", strings.Join(odd, "; "))
	}
	return http.StatusOK, nil
}

// store takes reports as `postman bounce` does, but that Mailjet is believed.
func (h *mailjetHook) store(ctx context.Context, reports []bounce.Report) error {
	suppressed := 0
	for some := range slices.Chunk(reports, eventsAtOnce) {
		views, errs := make([]BouncesView, len(some)), make([]error, len(some))
		var all sync.WaitGroup
		for i := range some {
			all.Go(func() { errs[i] = h.api.takeReport(ctx, &some[i], teller{name: "Mailjet", proved: true}, &views[i]) })
		}
		all.Wait()
		if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
			return errs[i]
		}
		for i := range views {
			suppressed += h.tell(&views[i])
		}
	}
	if suppressed > 0 {
		h.log.Info("mail goes no more to addresses that Mailjet told of", "suppressed", suppressed)
	}
	return nil
}

// tell says what people have to see to of an event, and counts the addresses that were suppressed.
func (h *mailjetHook) tell(v *BouncesView) (suppressed int) {
	for _, b := range v.Bounces {
		if b.Suppressed {
			suppressed++
		}
		if b.Kind == string(bounce.Unsubscribe) && b.Note != takenBefore {
			h.log.Warn("a recipient has unsubscribed at Mailjet: that is kept, and stops no mail; postman suppress add does, of all rules", "message", v.Message)
		}
	}
	return suppressed
}

// seldom lets something be told once in a minute, however often it happens. Any goroutine may use it.
type seldom struct {
	mu   sync.Mutex
	told time.Time
	kept int
}

// again says whether it may be told now, and how often it happened since the last time that it was.
func (s *seldom) again(now time.Time) (more int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.told.IsZero() && now.Sub(s.told) < time.Minute {
		s.kept++
		return 0, false
	}
	more, s.told, s.kept = s.kept, now, 0
	return more, true
}
