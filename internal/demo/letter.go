package demo

import (
	"bytes"
	"errors"
	"io"
	"strings"

	"github.com/emersion/go-message"
)

// letter is a mail taken apart, for somebody to look at.
type letter struct {
	Fields     []field // of the header, in order
	HTML, Text string
	Parts      []part // what is neither: an invitation, a file
	// Problem is why not all of it could be read; what could be is there all the same.
	Problem string
}

type field struct{ Name, Value string }

type part struct {
	Type, Name string
	Data       []byte
}

// readLetter takes a mail apart (RFC 5322, RFC 2045 to 2047).
func readLetter(raw []byte) *letter {
	var l letter
	entity, err := message.Read(bytes.NewReader(raw))
	l.note(err)
	if entity == nil {
		return &l
	}
	l.readFields(entity)
	l.note(entity.Walk(func(path []int, e *message.Entity, err error) error {
		l.note(err)
		switch {
		case e == nil:
			return nil
		case len(path) > maxDepth:
			return errors.New("its parts are nested too deeply")
		case e.MultipartReader() != nil:
			return nil
		}
		return l.readPart(e)
	}))
	return &l
}

// field is the first of a name; empty: there is none.
func (l *letter) field(name string) string {
	for _, f := range l.Fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// maxDepth bounds the nesting of parts that is followed; mails of people have three levels.
const maxDepth = 16

func (l *letter) note(err error) {
	if err != nil && l.Problem == "" {
		l.Problem = err.Error()
	}
}

func (l *letter) readFields(e *message.Entity) {
	for fields := e.Header.Fields(); fields.Next(); {
		text, err := fields.Text()
		if err != nil {
			text = fields.Value() // as it came
		}
		l.Fields = append(l.Fields, field{fields.Key(), text})
	}
}

func (l *letter) readPart(e *message.Entity) error {
	data, err := io.ReadAll(e.Body)
	l.note(err)
	kind, params, err := e.Header.ContentType()
	l.note(err)
	disposition, more, _ := e.Header.ContentDisposition() // there need not be one
	name := more["filename"]
	if name == "" {
		name = params["name"]
	}
	attached := disposition == "attachment" || name != ""
	switch {
	case kind == "text/html" && !attached && l.HTML == "":
		l.HTML = string(data)
	case kind == "text/plain" && !attached && l.Text == "":
		l.Text = string(data)
	default:
		l.Parts = append(l.Parts, part{kind, name, data})
	}
	return nil
}
