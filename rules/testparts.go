package rules

import (
	"encoding/json"
	"maps"
	"net/mail"
	"slices"
	"strings"

	"golang.org/x/text/language"
	"gopkg.in/yaml.v3"
)

// readChange reads a step's change: one row or message, and two rows for an update.
func (r *reader) readChange(s *TestStep, n *yaml.Node) {
	switch s.Op {
	case "update":
		rows, whole := r.mapping(n, "{new: {…}, old: {…}}", "new", "old")
		if whole && rows["new"] == nil {
			r.fail(n, "PM016", "an update has a new row", "write {new: {…}, old: {…}}")
			return
		}
		if rows["new"] != nil {
			s.New = r.readRow(rows["new"])
		}
		if rows["old"] != nil {
			s.Old = r.readRow(rows["old"])
		}
	case "delete":
		s.Old = r.readRow(n)
	case "truncate":
		if r.is(n, yaml.MappingNode, "{}") && len(n.Content) > 0 {
			r.fail(n, "PM016", "a truncate has no row", "write truncate: {}")
		}
	case "message":
		r.readContent(s, n)
	default:
		s.New = r.readRow(n)
	}
}

// readRow reads columns and their values as they were written: the column's type says what they mean.
func (r *reader) readRow(n *yaml.Node) []Cell {
	row := []Cell{}
	for _, f := range r.fields(n, "a row such as {id: 1, kind: meeting}") {
		c := Cell{Name: f.key.Value, Place: r.at(f.key), Value: r.at(f.value), Plain: plainStyle(f.value)}
		switch {
		case null(f.value):
		case f.value.Kind != yaml.ScalarNode:
			r.is(f.value, yaml.ScalarNode, "a single value (an array or JSON column is written as Postgres prints it, in quotes)")
		case !r.trapped[f.value]:
			r.whole(f.value)
			c.Text = new(f.value.Value)
		}
		row = append(row, c)
	}
	return row
}

// plainStyle says whether a scalar stands without quotes, and not under a |.
func plainStyle(n *yaml.Node) bool { return n.Style&^yaml.FlowStyle == 0 }

// readContent reads what a message holds: as in JSON, numbers, true, false and null stand without quotes, and all else is text.
func (r *reader) readContent(s *TestStep, n *yaml.Node) {
	if !r.is(n, yaml.MappingNode, "what the message holds, as in {email: kim@example.com}") {
		return
	}
	before := len(r.errs)
	content := r.jsonOf(n)
	if len(r.errs) > before {
		return
	}
	text, err := json.Marshal(content)
	if err != nil {
		r.fail(n, "PM016", "the message is no JSON: "+err.Error(), "")
	}
	s.Message = text
}

func (r *reader) jsonOf(n *yaml.Node) any {
	switch {
	case r.trapped[n] || null(n):
		return nil
	case n.Kind == yaml.MappingNode:
		object := make(map[string]any)
		for _, f := range r.fields(n, "a mapping") {
			object[f.key.Value] = r.jsonOf(f.value)
		}
		return object
	case n.Kind == yaml.SequenceNode:
		items := make([]any, len(n.Content))
		for i, item := range n.Content {
			items[i] = r.jsonOf(item)
		}
		return items
	case plainStyle(n) && jsonWord(n.Value):
		return json.RawMessage(n.Value)
	}
	return n.Value
}

// jsonWord says whether a text is a number, true or false in JSON.
func jsonWord(s string) bool {
	return s != "" && s != "null" && !strings.ContainsAny(s[:1], `{["`) && json.Valid([]byte(s)) && strings.TrimSpace(s) == s
}

// messageKeys are the keys of the messages of a rule's tests.
func (t *Test) messageKeys() []string {
	var names []string
	for _, s := range t.Steps {
		var object map[string]json.RawMessage
		if json.Unmarshal(s.Message, &object) == nil {
			names = slices.AppendSeq(names, maps.Keys(object))
		}
	}
	return names
}

// readGiven reads answers to the rule's queries.
func (r *reader) readGiven(rule *Rule, n *yaml.Node) *Given {
	g := &Given{Load: make(map[string][][]Cell)}
	parts, _ := r.mapping(n, "{to: [{email: …}], load: {name: {…}}}", "to", "cc", "load")
	if to := parts["to"]; to != nil {
		g.To = r.givenRecipients(rule.To, "to", to)
	}
	if cc := parts["cc"]; cc != nil {
		g.CC = r.givenRecipients(rule.CC, "cc", cc)
	}
	if load := parts["load"]; load != nil {
		for _, f := range r.fields(load, "rows by the names of load, as in {customer: {name: Kim}}") {
			r.givenLoad(rule, g, f)
		}
	}
	return g
}

func (r *reader) givenRecipients(of []Recipients, key string, n *yaml.Node) [][]Cell {
	if !slices.ContainsFunc(of, asksQuery) {
		r.fail(n, "PM016", "the rule's "+key+" asks no query whose answer could be given", "leave it out: these recipients come from the change or stand in the rule")
		return nil
	}
	rows := [][]Cell{}
	for _, item := range r.items(n, "a list of rows such as {email: kim@example.com, name: Kim}") {
		row := r.readRow(item)
		if item.Kind == yaml.MappingNode && !slices.ContainsFunc(row, func(c Cell) bool { return c.Name == "email" }) {
			r.fail(item, "PM016", "the row has no email", "add it; email: null is a recipient without an address")
		}
		rows = append(rows, row)
	}
	return rows
}

func (r *reader) givenLoad(rule *Rule, g *Given, f field) {
	name, _ := strings.CutSuffix(f.key.Value, "[]")
	i := slices.IndexFunc(rule.Load, func(l Load) bool { return l.Name == name })
	if i < 0 {
		var known []string
		for _, l := range rule.Load {
			known = append(known, l.Name)
		}
		r.fail(f.key, "PM016", "the rule has no load "+name, suggest(name, known))
		return
	}
	rows := [][]Cell{}
	switch {
	case !rule.Load[i].All && null(f.value): // no row
	case !rule.Load[i].All && f.value.Kind == yaml.SequenceNode && !r.trapped[f.value]:
		r.fail(f.value, "PM016", name+" is loaded as one row", "leave the brackets out, or load "+name+"[] in the rule")
	case !rule.Load[i].All:
		rows = append(rows, r.readRow(f.value))
	default:
		for _, item := range r.items(f.value, "a list of rows: "+name+"[] loads all of them") {
			rows = append(rows, r.readRow(item))
		}
	}
	g.Load[name] = rows
}

// readExpect reads what is expected of the mails.
func (r *reader) readExpect(e *Expect, parts map[string]*yaml.Node) {
	for _, key := range expectKeys {
		n := parts[key]
		if n == nil {
			continue
		}
		if at := r.at(n); e.Place.Line == 0 || before(at, e.Place) {
			e.Place = at
		}
		switch key {
		case "to":
			e.To = r.addresses(n)
		case "cc":
			e.CC = r.addresses(n)
		case "mail":
			if word, ok := r.scalar(n, "none"); ok && word != "none" {
				r.fail(n, "PM009", "mail is none, or left out", "say with to, subject and body what is expected of the mail")
			}
			e.None = true
		case "mails":
			e.Mails = r.readMails(n)
		}
	}
	e.Content = r.readContents(parts)
}

// readContents reads what is expected to be in a mail.
func (r *reader) readContents(parts map[string]*yaml.Node) (c Content) {
	for key, to := range map[string]*[]Said{"subject": &c.Subject, "body": &c.Body, "not_body": &c.NotBody} {
		if n := parts[key]; n != nil {
			*to = r.fragments(n)
		}
	}
	if n := parts["locale"]; n != nil {
		c.Locale = r.localeSaid(n)
	}
	return c
}

// readMails reads what is expected of the mails to single addresses.
func (r *reader) readMails(n *yaml.Node) []MailExpect {
	const form = "a list such as {to: kim@example.com, body: [a text]}"
	mails := []MailExpect{}
	for _, item := range r.items(n, form) {
		parts, whole := r.mapping(item, form, append([]string{"to"}, contentKeys...)...)
		if !whole {
			continue
		}
		m := MailExpect{Content: r.readContents(parts)}
		switch to := parts["to"]; {
		case to == nil:
			r.fail(item, "PM016", "it does not say which mail", "add its address, as in to: kim@example.com")
		case to.Kind == yaml.SequenceNode:
			r.fail(to, "PM016", "this is about one mail", "write an item for each address; what is in all of the mails is said beside mails")
		default:
			if all := r.addresses(to); len(all) == 1 {
				m.To = all[0]
			}
		}
		mails = append(mails, m)
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		r.fail(n, "PM008", "the list is empty", "leave it out, or write mail: none")
	}
	return mails
}

func (r *reader) localeSaid(n *yaml.Node) *Said {
	tag, ok := r.scalar(n, "a locale")
	if !ok {
		return nil
	}
	if _, err := language.Parse(tag); err != nil {
		r.fail(n, "PM009", tag+" is no locale", "a locale is a language, with a region where it matters: ko, en-GB")
	}
	return &Said{tag, r.at(n)}
}

func (r *reader) addresses(n *yaml.Node) []Said {
	all := r.texts(n, "an address, or a list of them", true)
	for _, s := range all {
		if a, err := mail.ParseAddress(s.Text); err != nil || a.Address != s.Text {
			r.failAt(s.Place, "PM016", s.Text+" is no mail address", "an address is like sales@example.com, without a name")
		}
	}
	return all
}

func (r *reader) fragments(n *yaml.Node) []Said {
	return r.texts(n, "a text, or a list of them", false)
}

// texts is one text or a list.
func (r *reader) texts(n *yaml.Node, what string, mayBeEmpty bool) []Said {
	nodes := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode && !r.trapped[n] {
		if nodes = n.Content; len(nodes) == 0 && !mayBeEmpty {
			r.fail(n, "PM008", "the list is empty", "leave it out")
		}
	}
	all := []Said{}
	for i, n := range nodes {
		s, ok := r.scalar(n, what)
		if ok && i+1 < len(nodes) && r.split(n) {
			r.fail(n, "PM016", "YAML takes the comma in this text for the end of it", "put the text into quotes")
			continue
		}
		if ok {
			all = append(all, Said{s, r.at(n)})
		}
	}
	return all
}

// split says whether a comma without a space behind it ends a plain text in a list: 7,000 would be two texts.
func (r *reader) split(n *yaml.Node) bool {
	if !plainStyle(n) {
		return false
	}
	end := newText(r.file, n).place(len([]rune(n.Value)))
	rest := []rune(r.file.line(end.Line))[end.Column-1:]
	return len(rest) > 1 && rest[0] == ',' && rest[1] != ' '
}
