package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/getsentry/sentry-go"
)

// reporter tells people of errors: in the log, and in Sentry where one is configured. Issues are grouped by rule and
// class of error, and no mail address leaves for Sentry.
type reporter struct {
	log *slog.Logger
	hub *sentry.Hub // nil: no Sentry
}

func newReporter(log *slog.Logger, dsn Secret) (*reporter, error) {
	if dsn == "" {
		return &reporter{log: log}, nil
	}
	client, err := sentry.NewClient(sentry.ClientOptions{
		Dsn: string(dsn), BeforeSend: scrub, Release: Version(), ServerName: "postman", AttachStacktrace: true,
	})
	if err != nil {
		return nil, fmt.Errorf("sentry_dsn: %w", err)
	}
	return &reporter{log, sentry.NewHub(client, sentry.NewScope())}, nil
}

// report tells of one error. Class is a short, stable word for the kind of failure, such as lookup or template.
func (r *reporter) report(ctx context.Context, err error, rule, class string) {
	r.tell(ctx, slog.LevelError, err, rule, class)
}

// warn tells of something that people have to see to, and that is no error of postman's.
func (r *reporter) warn(ctx context.Context, err error, rule, class string) {
	r.tell(ctx, slog.LevelWarn, err, rule, class)
}

func (r *reporter) tell(ctx context.Context, level slog.Level, err error, rule, class string) {
	r.log.Log(ctx, level, err.Error(), "rule", rule, "class", class) //nolint:sloglint // the error is the message
	if r.hub == nil {
		return
	}
	hub := r.hub.Clone() // a hub's stack of scopes is shared by all who report at the same time
	hub.ConfigureScope(func(scope *sentry.Scope) {
		scope.SetFingerprint([]string{rule, class})
		scope.SetLevel(map[slog.Level]sentry.Level{slog.LevelError: sentry.LevelError, slog.LevelWarn: sentry.LevelWarning}[level])
		scope.SetTag("rule", rule)
		scope.SetTag("class", class)
	})
	hub.CaptureException(err)
}

// flush gives Sentry's queue a moment before the process ends.
func (r *reporter) flush() {
	if r.hub != nil {
		r.hub.Flush(2 * time.Second)
	}
}

// address finds mail addresses generously: better a word too many is masked.
var address = regexp.MustCompile(`[^\s<>"'()\[\],;:]+@[^\s<>"'()\[\],;]+`)

// scrub masks mail addresses wherever an event carries text.
func scrub(event *sentry.Event, _ *sentry.EventHint) *sentry.Event {
	event.Message = mask(event.Message)
	for i := range event.Exception {
		event.Exception[i].Value = mask(event.Exception[i].Value)
	}
	for _, b := range event.Breadcrumbs {
		b.Message = mask(b.Message)
		b.Data = nil
	}
	for k, v := range event.Tags {
		event.Tags[k] = mask(v)
	}
	event.User, event.Request, event.ServerName = sentry.User{}, nil, ""
	return event
}

func mask(s string) string { return address.ReplaceAllString(s, "<address>") }
