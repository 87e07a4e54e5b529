// Package templates renders mails from files that people edit while postman runs.
//
// What it promises:
//
//  1. A set of templates is parsed and checked whole before it replaces the live one; every mistake is told at once, with
//     file, line, column and the way out.
//  2. What a mail shows is escaped for the place where it stands: HTML by html/template, calendar text as RFC 5545 asks.
//     A subject is one line whatever the data hold. A name that is not there is an error, never an empty place; NULL prints
//     nothing and is false.
//  3. Rendering is pure: data in, mail out. Nothing is read from disk, network or clock, and no template can run for ever:
//     it loops over lists only, and blocks cannot call themselves.
//
// The engine is html/template and text/template. Between parsing and use each tree is changed in three places: what an action
// prints passes our own printer (NULL, exact numbers, times by locale), a range takes lists only, and a condition knows zero of
// an exact number. docs/templates.md is the language's reference for the people who write mails.
package templates

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Set is an immutable set of templates, safe for many goroutines.
type Set struct {
	mails map[string]*mail
}

// mail is a template in each of the languages that it is written in.
type mail struct {
	variants map[string]*variant // by locale; "" is name.html, which every template has
}

// Mail is a rendered mail.
type Mail struct {
	Subject string // one line, no CR or LF, not empty
	HTML    string
	Text    string // from the block text, or else made from the HTML
	ICS     string // an iCalendar object from the block ics, its lines folded and ended by CRLF; empty: none
	Method  string // of ICS, in capitals: PUBLISH, REQUEST, CANCEL; empty: it names none
	Hash    Hash   // of the files that it was made from
}

// Hash is the SHA-256 of a template's file and the shared files, their names included: with the same data, the same hash makes the
// same mail.
type Hash [sha256.Size]byte

// Data is what a template sees: the names of docs/templates.md, values as package value decodes them, rows as
// map[string]any, lists of rows as []map[string]any.
type Data map[string]any

// Context is who the mail is rendered for.
type Context struct {
	Locale string         // BCP 47, "ko" or "ko-KR": name.ko-KR.html, name.ko.html and name.html are tried in this order
	Zone   *time.Location // timestamptz are shown in it; nil is UTC
}

// Load parses all templates of a folder: its files *.html, subfolders left alone. Files whose names begin with _ are shared by
// all the others. Errors name file, line and the way out, all at once (errors.Join). To keep links from leading out of the
// folder, pass the FS of an os.Root.
func Load(dir fs.FS) (*Set, error) {
	l, err := readFolder(dir)
	if err != nil {
		return nil, err
	}
	s := &Set{mails: make(map[string]*mail)}
	for _, f := range l.mails {
		s.add(f, l.compile(f))
	}
	for _, name := range s.Names() {
		if s.mails[name].variants[""] == nil {
			l.report(noDefault(name, s.mails[name]))
		}
	}
	if err := errors.Join(l.errs.errs...); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Set) add(f *file, v *variant) {
	m := s.mails[f.mail]
	if m == nil {
		m = &mail{variants: make(map[string]*variant)}
		s.mails[f.mail] = m
	}
	m.variants[f.locale] = v
}

func noDefault(name string, m *mail) error {
	there := slices.Sorted(maps.Keys(m.variants))
	return &mistake{
		file: &file{name: name + ".html"}, message: "the file is missing: it is what recipients get for whose language there is none",
		hint: fmt.Sprintf("rename %s.%s.html, or copy it", name, there[0]),
	}
}

// Has says whether a template of that name is in the set.
func (s *Set) Has(name string) bool { return s.mails[name] != nil }

// Names lists the templates in alphabetical order.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.mails)) }

// Render renders one mail. An error is the template's or its data's and will come again on the next try.
func (s *Set) Render(name string, c Context, d Data) (Mail, error) {
	m, err := s.mail(name)
	if err != nil {
		return Mail{}, err
	}
	return m.variant(c.Locale).render(inZone(d, c.Zone))
}

func (s *Set) mail(name string) (*mail, error) {
	if m := s.mails[name]; m != nil {
		return m, nil
	}
	hint := didYouMean(name, s.Names())
	if hint != "" {
		hint = "\n    → " + hint
	}
	return nil, fmt.Errorf("there is no template %s.html%s", name, hint)
}

// variant is the one for a locale: the most particular that there is.
func (m *mail) variant(locale string) *variant {
	for tag := locale; tag != ""; tag = shorter(tag) {
		if v := m.variants[normalTag(tag)]; v != nil {
			return v
		}
	}
	return m.variants[""]
}

// Hashes are those of a template's files, by the files' names.
func (s *Set) Hashes(name string) map[string]Hash {
	m := s.mails[name]
	if m == nil {
		return nil
	}
	hashes := make(map[string]Hash, len(m.variants))
	for _, v := range m.variants {
		hashes[v.file.name] = v.hash
	}
	return hashes
}

// Locales are the languages that a template is written in, in alphabetical order; "" is that of name.html.
func (s *Set) Locales(name string) []string {
	if m := s.mails[name]; m != nil {
		return slices.Sorted(maps.Keys(m.variants))
	}
	return nil
}

// Check tries a template, in each of its languages, on sample data, and says all that is wrong: a variable that is not there,
// also in a branch that the samples do not take; a function that cannot take its value. Pass a sample with all values filled and
// one of NULLs (see [Sample]), so that both sides of each condition run.
func (s *Set) Check(name string, samples ...Data) error {
	m, err := s.mail(name)
	if err != nil {
		return err
	}
	var errs mistakes
	for _, locale := range slices.Sorted(maps.Keys(m.variants)) {
		errs.add(m.variants[locale].try(samples)...)
	}
	return errors.Join(errs.errs...)
}
