// Package templates renders mails from files that people edit while postman runs.
//
// What it promises:
//
//  1. A set of templates is parsed and checked whole before it replaces the live one.
//  2. What a mail shows is escaped for the place where it stands (html/template); a name that is not there is an error,
//     never an empty place; NULL prints nothing.
//  3. Rendering is pure: data in, mail out. Nothing is read from disk, network or clock.
package templates

import (
	"io/fs"
	"time"
)

// CONTRACT STUBS: the implementation replaces this file; the signatures stay.

// Set is an immutable set of templates, safe for many goroutines.
type Set struct{}

// Load parses all templates of a folder. Errors name file, line and the way out, all at once (errors.Join).
func Load(dir fs.FS) (*Set, error) { panic("contract") }

// Mail is a rendered mail.
type Mail struct {
	Subject string // one line, no CR or LF
	HTML    string
	Text    string // from the block text, or else made from the HTML
	ICS     string // from the block ics; empty: none
}

// Data is what a template sees: the names of docs/templates.md, values as package value decodes them, rows as
// map[string]any, lists of rows as []map[string]any.
type Data map[string]any

// Context is who the mail is rendered for.
type Context struct {
	Locale string         // BCP 47, "ko" or "ko-KR"; name.ko.html is tried before name.html
	Zone   *time.Location // timestamptz are shown in it
}

// Has says whether a template of that name is in the set.
func (s *Set) Has(name string) bool { panic("contract") }

// Names lists the templates.
func (s *Set) Names() []string { panic("contract") }

// Render renders one mail.
func (s *Set) Render(name string, c Context, d Data) (Mail, error) { panic("contract") }

// Check renders a template in each of its locales with sample data, and says what is wrong: a variable that is
// not there, a missing block.
func (s *Set) Check(name string, sample Data) error { panic("contract") }
