package demo

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"postman/outbox"
)

// stream reads server-sent events.
type stream struct {
	lines *bufio.Scanner
	id    string
}

// next returns the next event's name and data, and remembers the id.
func (s *stream) next(t *testing.T) (name, data string) {
	t.Helper()
	for s.lines.Scan() {
		key, value, _ := strings.Cut(s.lines.Text(), ": ")
		switch key {
		case "event":
			name = value
		case "data":
			data += value
		case "id":
			s.id = value
		case "":
			if name != "" || data != "" {
				return name, data
			}
		}
	}
	t.Fatalf("the stream ended: %v", s.lines.Err())
	return "", ""
}

// seen waits for an id.
func (s *stream) seen(t *testing.T, id int) {
	t.Helper()
	for s.id != strconv.Itoa(id) {
		if !s.lines.Scan() {
			t.Fatalf("the stream ended before id %d: %v", id, s.lines.Err())
		}
		if key, value, _ := strings.Cut(s.lines.Text(), ": "); key == "id" {
			s.id = value
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	box := newInbox()
	p := mustPage(t, box)
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	open := func(lastID string) *stream {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/events?after=0&run="+p.run, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Last-Event-ID", lastID)
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { answer.Body.Close() })
		if got := answer.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type %s", got)
		}
		return &stream{lines: bufio.NewScanner(answer.Body)}
	}

	s := open("")
	meeting.accepted(box, 4*time.Millisecond) // while the browser listens
	name, data := s.next(t)
	if name != "mail" || !strings.Contains(data, `id="mail-1"`) || !strings.Contains(data, meeting.subject) || strings.Contains(data, "ms") {
		t.Errorf("arrived: %s %s", name, data)
	}
	if name, data := s.next(t); name != "figures" || data != "waiting for the first mail" {
		t.Errorf("figures: %s %s", name, data)
	}
	s.seen(t, 1)
	meeting.recorded(box, outbox.MessageSent)
	name, data = s.next(t)
	if name != "mail" || !strings.Contains(data, `id="mail-1"`) || !strings.Contains(data, "4.00 ms") {
		t.Errorf("recorded: %s %s", name, data)
	}
	if name, data := s.next(t); name != "figures" || !strings.Contains(data, "<b>1</b> mail<") {
		t.Errorf("figures: %s %s", name, data)
	}
	s.seen(t, 2)

	// After a broken connection the browser hears what it missed, and no more.
	hostile := meeting
	hostile.id, hostile.subject = "h", "a\r\n\r\nevent: mail\r\ndata: <script>"
	hostile.arrive(box, time.Millisecond)
	s = open("2")
	if name, data := s.next(t); name != "mail" || !strings.Contains(data, `id="mail-2"`) || strings.Contains(data, "<script>") {
		t.Errorf("missed: %s %s", name, data)
	}
	if name, data := s.next(t); name != "figures" || !strings.Contains(data, "<b>2</b> mails") {
		t.Errorf("after a hostile subject: %s %s", name, data)
	}
	// What postman did not send is no row.
	hostile.id = "n"
	hostile.recorded(box, outbox.MessageDead)
	if name, _ := s.next(t); name != "figures" {
		t.Errorf("not sent: %s", name)
	}
}

func TestEventsOfAnotherRun(t *testing.T) {
	t.Parallel()
	box := newInbox()
	meeting.arrive(box, time.Millisecond)
	got := get(mustPage(t, box), "localhost", "/events?after=7&run=gone")
	if body, _ := io.ReadAll(got.Body); string(body) != "event: restarted\ndata: \n\n" {
		t.Errorf("%q", body)
	}
}
