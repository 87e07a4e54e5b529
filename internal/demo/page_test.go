package demo

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestPage(t *testing.T) {
	t.Parallel()
	box := newInbox()
	meeting.arrive(box, 3810*time.Microsecond)
	hostile := sample{
		id: "h1", rule: `<i>rule</i>`, subject: `</a><script>alert("주제")</script>`, name: `"><img src=x onerror=alert(1)>`, to: `a"b'<c>@example.net`,
		html: `<script>alert("body")</script><p>안녕</p>`, text: `</pre><script>alert("text")</script>`, ics: "x",
	}
	hostile.arrive(box, 5*time.Millisecond)
	p := mustPage(t, box)
	for name, test := range map[string]struct {
		path       string
		code       int
		has, lacks []string
		header     map[string]string
	}{
		"the list shows all, and opens the newest": {
			path: "/", code: 200,
			has: []string{
				`id="mail-1" href="/mail/1"`, `id="mail-2" href="/mail/2" data-open aria-current="true"`, "조현우 고객님 미팅이 등록되었습니다", "이서연",
				"schedule-co-assigned", "3.81 ms", `<b>2</b> mails`, `data-view="list"`, `<iframe title="The mail" sandbox src="/mail/2/body"`,
			},
			lacks:  []string{"<script>alert", "<img src=x", "<i>rule</i>"},
			header: map[string]string{"Content-Security-Policy": pagePolicy, "X-Content-Type-Options": "nosniff"},
		},
		"a mail": {
			path: "/mail/1", code: 200,
			has: []string{
				`data-view="mail"`, "<h1>조현우 고객님 미팅이 등록되었습니다</h1>", "온마루 부동산중개", "seoyeon.lee@onmaru.example",
				`<a href="/mail/1/part/0" download>invite.ics</a>`, `sandbox src="/mail/1/body"`, `id="mail-1" href="/mail/1" data-open aria-current`,
			},
		},
		"its text":                     {path: "/mail/1?as=text", code: 200, has: []string{"<pre class=\"text\">미팅이 등록되었습니다\n12월 2일 오후 3시</pre>"}, lacks: []string{"<iframe"}},
		"its headers":                  {path: "/mail/1?as=headers", code: 200, has: []string{`<th scope="row">Subject</th><td>조현우 고객님 미팅이 등록되었습니다</td>`, "&lt;m1@onmaru.example&gt;"}},
		"its raw form":                 {path: "/mail/1?as=raw", code: 200, has: []string{"Subject: =?utf-8?b?", "--=_edge--"}},
		"an unknown form is the usual": {path: "/mail/1?as=pdf", code: 200, has: []string{"<iframe"}},
		"hostile text":                 {path: "/mail/2?as=text", code: 200, has: []string{"&lt;/pre&gt;&lt;script&gt;"}, lacks: []string{"<script>alert"}},
		"hostile headers":              {path: "/mail/2?as=headers", code: 200, has: []string{"&lt;script&gt;"}, lacks: []string{"<script>alert", "<img src=x"}},
		"a body goes out as it is, and is caged": {
			path: "/mail/2/body", code: 200, has: []string{`<script>alert("body")</script>`},
			header: map[string]string{"Content-Security-Policy": mailPolicy, "Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff"},
		},
		"raw bytes are a download": {
			path: "/mail/2/raw", code: 200, has: []string{"Message-ID: <h1@onmaru.example>"},
			header: map[string]string{"Content-Type": "application/octet-stream", "Content-Disposition": "attachment; filename=mail-2.eml"},
		},
		"a part is a download": {
			path: "/mail/1/part/0", code: 200, has: []string{"BEGIN:VCALENDAR"},
			header: map[string]string{"Content-Type": "application/octet-stream", "Content-Disposition": "attachment; filename=invite.ics"},
		},
		"no such part":    {path: "/mail/1/part/1", code: 404},
		"no part at all":  {path: "/mail/1/part/-1", code: 404},
		"no such mail":    {path: "/mail/3", code: 404, has: []string{"no such mail"}},
		"no mail at all":  {path: "/mail/x", code: 404},
		"the stylesheet":  {path: "/style.css", code: 200, has: []string{".row"}, header: map[string]string{"Content-Type": "text/css; charset=utf-8"}},
		"the script":      {path: "/script.js", code: 200, has: []string{"EventSource"}},
		"the icon":        {path: "/icon.svg", code: 200, header: map[string]string{"Content-Type": "image/svg+xml"}},
		"a template file": {path: "/inbox.html", code: 404},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := get(p, "127.0.0.1:8025", test.path)
			body := got.Body.String()
			if got.Code != test.code {
				t.Errorf("answered %d: %s", got.Code, body)
			}
			for _, s := range test.has {
				if !strings.Contains(body, s) {
					t.Errorf("has no %q in:\n%s", s, body)
				}
			}
			for _, s := range test.lacks {
				if strings.Contains(body, s) {
					t.Errorf("has %q in:\n%s", s, body)
				}
			}
			for name, want := range test.header {
				if v := got.Header().Get(name); v != want {
					t.Errorf("%s: %q; want %q", name, v, want)
				}
			}
		})
	}
}

func TestPageEmpty(t *testing.T) {
	t.Parallel()
	box := newInbox()
	p := mustPage(t, box)
	if body := get(p, "localhost:8025", "/").Body.String(); !strings.Contains(body, "No mail yet") || !strings.Contains(body, "waiting for the first mail") {
		t.Error(body)
	}
	// What postman did not send is no mail to show.
	meeting.recorded(box, 0)
	if body := get(p, "localhost:8025", "/").Body.String(); !strings.Contains(body, "No mail yet") {
		t.Error(body)
	}
	if got := get(p, "localhost:8025", "/mail/1"); got.Code != http.StatusNotFound {
		t.Errorf("/mail/1 answered %d", got.Code)
	}
}

// TestPageMangled shows mails that nobody can read.
func TestPageMangled(t *testing.T) {
	t.Parallel()
	const mangled = "could not be read whole"
	for name, test := range map[string]struct{ raw, says string }{
		"nothing":          {"", "(no subject)"},
		"no header":        {"hello\r\n", mangled},
		"no end":           {"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n", mangled},
		"unknown charset":  {"Content-Type: text/plain; charset=klingon\r\n\r\nhello\r\n", mangled},
		"unknown encoding": {"Content-Transfer-Encoding: rot13\r\nSubject: hello\r\n\r\nhello\r\n", mangled},
		"broken base64":    {"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n<<<hello\r\n", mangled},
		"nested too deep":  {nested(100) + "hello\r\n", mangled},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			box := newInbox()
			box.accept(smtpMail(test.raw))
			p := mustPage(t, box)
			for _, path := range []string{"/", "/mail/1?as=raw"} {
				got := get(p, "localhost", path)
				body := got.Body.String()
				if got.Code != http.StatusOK || !strings.Contains(body, test.says) {
					t.Errorf("%s answered %d and does not say %q: %s", path, got.Code, test.says, body)
				}
				if path != "/" && strings.Contains(test.raw, "hello") && !strings.Contains(body, "hello") {
					t.Errorf("the raw form lacks what came: %s", body)
				}
			}
		})
	}
}

// nested is the beginning of a multipart in a multipart in …, each with a boundary of its own.
func nested(levels int) string {
	var b strings.Builder
	for i := range levels {
		fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=x%d\r\n\r\n--x%d\r\n", i, i)
	}
	return b.String()
}

func TestPageRefuses(t *testing.T) {
	t.Parallel()
	p := mustPage(t, newInbox())
	for host, want := range map[string]int{
		"127.0.0.1:8025": 200, "localhost:8025": 200, "LOCALHOST": 200, "[::1]:8025": 200, "127.0.0.1": 200,
		"evil.example:8025": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "": 421, "192.0.2.1:8025": 421,
	} {
		if got := get(p, host, "/"); got.Code != want {
			t.Errorf("under %q it answered %d; want %d", host, got.Code, want)
		}
	}
	post := httptest.NewRequest(http.MethodPost, "http://localhost/", nil)
	w := httptest.NewRecorder()
	if p.ServeHTTP(w, post); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST answered %d", w.Code)
	}
}

func mustPage(t *testing.T, box *inbox) *page {
	t.Helper()
	p, err := newPage(box)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func get(p *page, host, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = host
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	return w
}
