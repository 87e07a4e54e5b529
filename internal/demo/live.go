package demo

import (
	"bytes"
	"context"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// heartbeat is how often a silent stream of events says that it is there, so that neither side takes it for dead.
const heartbeat = 15 * time.Second

// events sends the rows of the list as they change, as server-sent events (HTML standard, section 9.2). An event's id is the
// seq to go on behind after a broken connection.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	if r.FormValue("run") != p.run {
		_, _ = io.WriteString(w, "event: restarted\ndata: \n\n") // the numbers of another run mean nothing here
		return
	}
	after, err := strconv.Atoi(r.Header.Get("Last-Event-ID"))
	if err != nil {
		after, _ = strconv.Atoi(r.FormValue("after")) // without either: all there are
	}
	flush := http.NewResponseController(w)
	for err := flush.Flush(); err == nil && r.Context().Err() == nil; err = flush.Flush() {
		after, err = p.news(r.Context(), w, after)
		if err != nil {
			return
		}
	}
}

// news waits for changes and writes them as events; after a silent while, a comment. It returns the seq to go on behind.
func (p *page) news(ctx context.Context, w io.Writer, after int) (int, error) {
	wait, cancel := context.WithTimeout(ctx, heartbeat)
	defer cancel()
	changed, next, err := p.inbox.after(wait, after)
	if err != nil {
		_, err = io.WriteString(w, ":\n\n")
		return after, err
	}
	var b bytes.Buffer
	for _, e := range changed {
		if !e.arrived() {
			continue
		}
		if err := event(&b, p.view.Lookup("row"), "mail", row{entry: e}); err != nil {
			return after, err
		}
	}
	if err := event(&b, p.view.Lookup("figures"), "figures", figure(p.inbox.all())); err != nil {
		return after, err
	}
	fmt.Fprintf(&b, "id: %d\n\n", next)
	_, err = w.Write(b.Bytes())
	return next, err
}

// event renders one, with its line ends put away: they would end it.
func event(b *bytes.Buffer, t *template.Template, name string, data any) error {
	var text strings.Builder
	if err := t.Execute(&text, data); err != nil {
		return err
	}
	oneLine := strings.NewReplacer("\r", " ", "\n", " ").Replace(text.String())
	fmt.Fprintf(b, "event: %s\ndata: %s\n\n", name, oneLine)
	return nil
}
