package demo

import (
	"bytes"
	"crypto/rand"
	"embed"
	"fmt"
	"html/template"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

//go:embed page
var pageFiles embed.FS

// page shows the inbox in a browser. It answers GET alone, and only under a loopback name: a web page from elsewhere must
// not read mails through a name that it made point here.
type page struct {
	inbox *inbox
	run   string // changes with each start, so that a browser notices
	view  *template.Template
	mux   *http.ServeMux
}

func newPage(b *inbox) (*page, error) {
	p := &page{inbox: b, run: rand.Text(), mux: http.NewServeMux()}
	var err error
	p.view, err = template.New("").Funcs(template.FuncMap{"ms": milliseconds, "bytes": size}).
		ParseFS(pageFiles, "page/inbox.html")
	if err != nil {
		return nil, fmt.Errorf("reading the page's templates: %w", err)
	}
	p.mux.HandleFunc("GET /{$}", p.list)
	p.mux.HandleFunc("GET /mail/{id}", p.mail)
	p.mux.HandleFunc("GET /mail/{id}/body", p.body)
	p.mux.HandleFunc("GET /mail/{id}/raw", p.raw)
	p.mux.HandleFunc("GET /mail/{id}/part/{part}", p.part)
	p.mux.HandleFunc("GET /events", p.events)
	for _, name := range []string{"style.css", "script.js", "icon.svg"} {
		p.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			http.ServeFileFS(w, r, pageFiles, "page/"+name)
		})
	}
	return p, nil
}

const (
	pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	// A mail runs nothing, loads nothing and submits nothing, in the frame or opened on its own.
	mailPolicy = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
)

// ServeHTTP answers a request.
func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !loopback(r.Host) {
		http.Error(w, "the inbox answers under 127.0.0.1 and localhost only", http.StatusMisdirectedRequest)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	p.mux.ServeHTTP(w, r)
}

// loopback says whether a host, with or without a port, is this machine and nothing else.
func loopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// row is a mail in the list.
type row struct {
	*entry
	Current bool
}

// screen is what the page shows.
type screen struct {
	Run     string
	After   int // the seq that the list goes up to
	View    string
	Rows    []row // newest first
	Figures figures
	Open    *entry // nil: none
	Letter  *letter
	Tabs    []string
	As      string
}

func (p *page) list(w http.ResponseWriter, _ *http.Request) {
	s := p.screen(0)
	if len(s.Rows) > 0 {
		s.open(s.Rows[0].entry, "")
		s.Rows[0].Current = true
	}
	p.render(w, s)
}

func (p *page) mail(w http.ResponseWriter, r *http.Request) {
	e, ok := p.asked(w, r)
	if !ok {
		return
	}
	s := p.screen(e.ID)
	s.View = "mail"
	s.open(e, r.FormValue("as"))
	p.render(w, s)
}

func (p *page) screen(current int) *screen {
	s := &screen{Run: p.run, View: "list"}
	all := p.inbox.all()
	for _, e := range slices.Backward(all) {
		s.After = max(s.After, e.seq)
		if e.arrived() {
			s.Rows = append(s.Rows, row{e, e.ID == current})
		}
	}
	s.Figures = figure(all)
	return s
}

// open shows a mail as html, text, headers or raw; by default as the first of them that it has.
func (s *screen) open(e *entry, as string) {
	s.Open, s.Letter = e, readLetter(e.Raw)
	if s.Letter.HTML != "" {
		s.Tabs = append(s.Tabs, "html")
	}
	if s.Letter.Text != "" {
		s.Tabs = append(s.Tabs, "text")
	}
	s.Tabs = append(s.Tabs, "headers", "raw")
	s.As = as
	if !slices.Contains(s.Tabs, as) {
		s.As = s.Tabs[0]
	}
}

func (p *page) render(w http.ResponseWriter, s *screen) {
	var b bytes.Buffer // whole or not at all
	if err := p.view.ExecuteTemplate(&b, "page", s); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // the browser is gone: nobody to tell
}

// asked finds the mail that a path names, or answers 404.
func (p *page) asked(w http.ResponseWriter, r *http.Request) (*entry, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err == nil {
		if e := p.inbox.get(id); e != nil && e.arrived() {
			return e, true
		}
	}
	http.Error(w, "no such mail: it was never here, or "+strconv.Itoa(keep)+" newer ones have come since", http.StatusNotFound)
	return nil, false
}

func (p *page) body(w http.ResponseWriter, r *http.Request) {
	if e, ok := p.asked(w, r); ok {
		w.Header().Set("Content-Security-Policy", mailPolicy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(readLetter(e.Raw).HTML))
	}
}

func (p *page) raw(w http.ResponseWriter, r *http.Request) {
	if e, ok := p.asked(w, r); ok {
		download(w, fmt.Sprintf("mail-%d.eml", e.ID), e.Raw)
	}
}

func (p *page) part(w http.ResponseWriter, r *http.Request) {
	e, ok := p.asked(w, r)
	if !ok {
		return
	}
	parts := readLetter(e.Raw).Parts
	n, err := strconv.Atoi(r.PathValue("part"))
	if err != nil || n < 0 || n >= len(parts) {
		http.Error(w, "the mail has no such part", http.StatusNotFound)
		return
	}
	download(w, parts[n].Name, parts[n].Data)
}

// download sends bytes as a file, whatever they claim to be.
func download(w http.ResponseWriter, name string, data []byte) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	w.Header().Set("Content-Security-Policy", mailPolicy)
	_, _ = w.Write(data)
}
