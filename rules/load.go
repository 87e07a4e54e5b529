package rules

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a rule's zone must not depend on the machine that reads it

	"golang.org/x/text/language"
	"gopkg.in/yaml.v3"

	"postman/cdc"
)

// ruleKey is a key of a rule and what reads it.
type ruleKey struct {
	name string
	read func(*reader, *Rule, *yaml.Node)
}

// ruleKeys are the keys of a rule in their canonical order, in which they are also read: tests look at on.
var ruleKeys = []ruleKey{
	{"name", (*reader).readName},
	{"about", func(r *reader, rule *Rule, n *yaml.Node) { rule.About, _ = r.word(n, "text") }},
	{"was", func(r *reader, rule *Rule, n *yaml.Node) { rule.Was, _ = r.scalar(n, "a rule's former name") }},
	{"on", (*reader).readOn},
	{"when", (*reader).readWhen},
	{"load", (*reader).readLoad},
	{"to", func(r *reader, rule *Rule, n *yaml.Node) { rule.To = r.recipients(n) }},
	{"cc", func(r *reader, rule *Rule, n *yaml.Node) { rule.CC = r.recipients(n) }},
	{"from", func(r *reader, rule *Rule, n *yaml.Node) { rule.From = r.sender(n) }},
	{"reply_to", func(r *reader, rule *Rule, n *yaml.Node) { rule.ReplyTo = r.sender(n) }},
	{"template", (*reader).readTemplate},
	{"locale", (*reader).readLocale},
	{"timezone", (*reader).readZone},
	{"class", (*reader).readClass},
	{"priority", func(r *reader, rule *Rule, n *yaml.Node) { rule.Priority = oneOf(r, n, Normal, High, Bulk) }},
	{"relay", func(r *reader, rule *Rule, n *yaml.Node) { rule.Relay, _ = r.scalar(n, "a relay's name") }},
	{"expires", (*reader).readExpires},
	{"thread", (*reader).readThread},
	{"uncertain", func(r *reader, rule *Rule, n *yaml.Node) {
		rule.HoldUncertain = oneOf(r, n, "resend", "hold") == "hold"
	}},
	{"hold_over", (*reader).readHoldOver},
	{"max_recipients", func(r *reader, rule *Rule, n *yaml.Node) {
		if number, ok := r.count(n); ok {
			rule.MaxRecipients = number
		}
	}},
	{"tests", (*reader).readTests},
}

// laterKeys belong to the language, and to a later version of postman.
var laterKeys = []string{
	"every", "at", "query", "catch_up", "topic", "delay", "send_at", "late", "key", "once", "once_for",
	"cancel", "recheck", "digest", "limit", "hours",
}

const laterHint = "leave it out until postman has it; docs/rules.md lists what this version has"

// readRule reads one rule. What is wrong with it is in the errors, and it is nil only when it is no mapping at all.
func (r *reader) readRule(n *yaml.Node) *Rule {
	r.rule = ruleName(n)
	defer func() { r.rule, r.unread = "", nil }()
	r.traps(n)
	rule := &Rule{
		Place: Place{r.file.name, n.Line, n.Column}, file: r.file,
		Class: Notice, Priority: Normal, MaxRecipients: 50, HoldOver: HoldOver{Transaction: 100, Minute: 200, Tick: 10000, Row: 5},
	}
	if r.trapped[n] || n.Kind != yaml.MappingNode {
		if !r.trapped[n] {
			r.fail(n, "PM008", "a rule is a mapping, and this is "+kindName(n), "begin it with name: and indent its other keys alike")
		}
		return nil
	}
	there := make(map[string]*yaml.Node)
	fields := r.fields(n, "")
	stray := r.strays(fields)
	for _, f := range fields {
		if there[f.key.Value] = f.value; stray[f.key] {
			r.trapped[f.value] = true
			continue
		}
		i := slices.IndexFunc(ruleKeys, func(k ruleKey) bool { return k.name == f.key.Value })
		if i < 0 {
			r.unknownKey(f.key)
			continue
		}
		rule.keys = append(rule.keys, keyPlace{uint8(i), where{int32(f.key.Line), int32(f.key.Column)}})
	}
	for _, k := range ruleKeys {
		if there[k.name] != nil && !r.trapped[there[k.name]] {
			k.read(r, rule, there[k.name])
		}
	}
	rule.unread = r.unread
	scheduled := there["every"] != nil || there["at"] != nil
	for _, key := range []string{"name", "on", "to", "template"} {
		if there[key] == nil && (key != "on" || !scheduled) {
			r.fail(n, "PM007", "the rule has no "+key, requiredHints[key])
		}
	}
	return rule
}

var requiredHints = map[string]string{
	"name":     "add name: a word that logs and commands call it by",
	"on":       "add on: {table: …, ops: [insert]} or on: {message: …}",
	"to":       "add to: {query: select email, name from …}, {address: …} or an expression",
	"template": "add template: the name of a file among the templates, without its ending",
}

// ruleName is a rule's name, for the messages about its other keys.
func ruleName(n *yaml.Node) string {
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		if n.Content[i].Value == "name" {
			return n.Content[i+1].Value
		}
	}
	return ""
}

func (r *reader) unknownKey(key *yaml.Node) {
	if slices.Contains(laterKeys, key.Value) {
		r.fail(key, "PM006", "this version of postman does not have "+key.Value+" yet", laterHint)
		return
	}
	var known []string
	for _, k := range ruleKeys {
		known = append(known, k.name)
	}
	if m := colonGlued.FindStringSubmatch(key.Value); m != nil && isKey(m[1]) {
		r.fail(key, "PM005", "a rule has no key "+key.Value, spaceHint(m))
		return
	}
	hint := suggest(key.Value, known)
	for _, owner := range slices.Sorted(maps.Keys(nestedKeys)) {
		if slices.Contains(nestedKeys[owner], key.Value) && (owner == "on" || owner == "to" || owner == "hold_over") {
			hint = "it belongs under " + owner + ":"
		}
	}
	r.fail(key, "PM005", "a rule has no key "+key.Value, hint)
}

var goodName = regexp.MustCompile(`^[\p{L}\p{N}][\p{L}\p{M}\p{N}._-]{0,99}$`)

func (r *reader) readName(rule *Rule, n *yaml.Node) {
	name, ok := r.scalar(n, "a name")
	if !ok {
		return
	}
	rule.Name = name
	if !goodName.MatchString(name) {
		r.fail(n, "PM012", "a rule's name is one word of up to 100 letters, digits, dots, underscores and hyphens", nameHint(name))
	}
}

// NameFor is a text as a rule's name: itself where it is one, or else the one that is nearest; empty where there is none.
func NameFor(text string) string {
	if goodName.MatchString(text) {
		return text
	}
	words := strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !goodName.MatchString("a" + string(r)) })
	name := strings.Trim(strings.Join(words, "-"), "-._")
	if !goodName.MatchString(name) {
		return ""
	}
	return name
}

func nameHint(text string) string {
	if name := NameFor(text); name != "" {
		return "write " + name
	}
	return ""
}

// mailFile is a template as a file is called, with its folder and language.
var mailFile = regexp.MustCompile(`^(?:.*/)?([^/.]*)(?:\.[A-Za-z-]+)?\.html$`)

func (r *reader) readTemplate(rule *Rule, n *yaml.Node) {
	name, ok := r.word(n, "a template's name")
	if m := mailFile.FindStringSubmatch(name); ok && m != nil {
		hint := "write " + m[1]
		if m[1] == "" {
			hint = "write the name of a file among the templates"
		}
		r.fail(n, "PM009", "a template is named without its folder, language and ending", hint)
		name = m[1] // what is said of that one is true as well
	}
	rule.Template = name
}

func (r *reader) readOn(rule *Rule, n *yaml.Node) {
	parts, whole := r.mapping(n, onForms, "table", "ops", "message")
	if !whole {
		return
	}
	table, hasTable := parts["table"]
	message, hasMessage := parts["message"]
	ops, hasOps := parts["ops"]
	switch {
	case hasTable == hasMessage:
		r.fail(n, "PM013", "on names either a table or a message", "write "+onForms)
	case hasMessage && hasOps:
		r.fail(ops, "PM013", "a message has no ops", "leave ops out")
	case hasTable && !hasOps:
		r.fail(n, "PM007", "on does not say which operations", "add ops, as in {table: …, ops: [insert]}; there are insert, update, delete and truncate")
	case hasTable:
		r.readTable(rule, table, ops)
	default:
		r.readMessage(rule, message)
	}
}

func (r *reader) readTable(rule *Rule, table, ops *yaml.Node) {
	name, ok := r.scalar(table, "a table's name")
	if ok {
		rule.On.Table = tableName(name)
		at := newText(r.file, table).place(0)
		rule.tableAt = where{int32(at.Line), int32(at.Column)}
	}
	for _, n := range r.items(ops, "a list such as [insert, update]") {
		op, ok := r.operation(n)
		if ok && slices.Contains(rule.On.Ops, op) {
			r.fail(n, "PM009", op.String()+" is there twice", "")
		} else if ok {
			rule.On.Ops = append(rule.On.Ops, op)
		}
	}
	if ops.Kind == yaml.SequenceNode && len(ops.Content) == 0 {
		r.fail(ops, "PM008", "ops is an empty list", "name at least one of insert, update, delete and truncate")
	}
	if !ok {
		rule.On = On{} // on nothing, which is reported: nothing more can be said of it
	}
}

// rowOps are the operations that a rule can be on.
var rowOps = []cdc.Op{cdc.Insert, cdc.Update, cdc.Delete, cdc.Truncate}

func (r *reader) operation(n *yaml.Node) (cdc.Op, bool) {
	word, ok := r.scalar(n, "an operation")
	if !ok {
		return 0, false
	}
	for _, op := range rowOps {
		if op.String() == word {
			return op, true
		}
	}
	r.fail(n, "PM009", word+" is no operation", suggest(word, opNames(rowOps)))
	return 0, false
}

func opNames(ops []cdc.Op) []string {
	names := make([]string, len(ops))
	for i, op := range ops {
		names[i] = op.String()
	}
	return names
}

var goodMessage = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)

func (r *reader) readMessage(rule *Rule, n *yaml.Node) {
	name, ok := r.scalar(n, "a message's name")
	switch short, prefixed := strings.CutPrefix(name, "postman."); {
	case !ok:
	case prefixed:
		r.fail(n, "PM013", "the prefix postman. is not a part of the message's name here", "write message: "+short)
	case name == "mute":
		r.fail(n, "PM013", "postman.mute is postman's own message: it mutes a transaction", "choose another name")
	case !goodMessage.MatchString(name):
		r.fail(n, "PM013", "a message's name is made of letters, digits, underscores, dots and hyphens", "")
	default:
		rule.On.Message, rule.On.Ops = name, []cdc.Op{cdc.Emit}
	}
}

func (r *reader) readWhen(rule *Rule, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && strings.TrimSpace(n.Value) == "" && !r.trapped[n] {
		r.fail(n, "PM008", "when is empty", "leave when out to match every change, or write a condition")
		return
	}
	if n.Kind == yaml.SequenceNode && len(n.Content) > 1 && !r.trapped[n] {
		r.fail(n, "PM008", "this must be an expression, and is a list", "write one condition: join the parts with and, or with or")
		return
	}
	rule.When = r.expr(n, "an expression")
}

var (
	goodLoad = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)
	// taken are the names that a template sees anyway.
	taken = []string{"rule", "about", "op", "table", "new", "old", "message", "row", "to", "commit_time", "items"}
)

func (r *reader) readLoad(rule *Rule, n *yaml.Node) {
	for _, f := range r.fields(n, loadForms) {
		name, all := strings.CutSuffix(f.key.Value, "[]")
		switch {
		case !goodLoad.MatchString(name):
			r.fail(f.key, "PM015", f.key.Value+" is no name for a template to use", "use letters, digits and underscores, and [] behind them for all rows")
			continue
		case slices.Contains(taken, name):
			r.fail(f.key, "PM015", "a template sees the change itself under the name "+name, "choose another name")
			continue
		case slices.ContainsFunc(rule.Load, func(l Load) bool { return l.Name == name }):
			r.fail(f.key, "PM015", "the name "+name+" is loaded twice", "choose another name for one of them")
			continue
		}
		if sql := r.sql(f.value); sql != nil {
			rule.Load = append(rule.Load, Load{Name: name, All: all, SQL: sql})
		}
	}
}

func (r *reader) readLocale(rule *Rule, n *yaml.Node) {
	locale, ok := r.scalar(n, "a locale")
	if !ok {
		return
	}
	if _, err := language.Parse(locale); err != nil {
		r.fail(n, "PM009", locale+" is no locale", "a locale is a language, with a region where it matters: ko, en-GB")
		return
	}
	rule.Locale = locale
}

func (r *reader) readZone(rule *Rule, n *yaml.Node) {
	name, ok := r.scalar(n, "a time zone")
	if !ok {
		return
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		r.fail(n, "PM009", name+" is no time zone", "a time zone is called after a city, as in Asia/Seoul, or UTC")
		return
	}
	rule.Zone = zone
}

func (r *reader) readClass(rule *Rule, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == string(Ad) {
		r.fail(n, "PM006", "class: ad needs a topic, which this version of postman does not have yet", laterHint)
		return
	}
	rule.Class = oneOf(r, n, Notice, Transactional)
}

func (r *reader) readExpires(rule *Rule, n *yaml.Node) {
	s, ok := r.scalar(n, "a duration such as 15m")
	if !ok {
		return
	}
	d, err := parseDuration(s)
	if err == nil && d == (Duration{}) {
		err = fmt.Errorf("a mail that expires at once is never sent")
	}
	if err != nil {
		hint := ""
		if meant, ok := readInterval(s); ok {
			hint = "write " + meant.text(true)
		}
		r.fail(n, "PM009", s+": "+err.Error(), hint)
		return
	}
	rule.Expires = d
}

func (r *reader) readHoldOver(rule *Rule, n *yaml.Node) {
	limits := map[string]*int{"transaction": &rule.HoldOver.Transaction, "minute": &rule.HoldOver.Minute, "tick": &rule.HoldOver.Tick, "row": &rule.HoldOver.Row}
	parts, _ := r.mapping(n, "{transaction: …, minute: …, tick: …, row: …}", "transaction", "minute", "tick", "row")
	for _, key := range slices.Sorted(maps.Keys(parts)) {
		if number, ok := r.count(parts[key]); ok {
			*limits[key] = number
		}
	}
}

// mapping reads a mapping with a closed set of keys, and says whether nothing was wrong with them.
func (r *reader) mapping(n *yaml.Node, what string, known ...string) (parts map[string]*yaml.Node, whole bool) {
	if !r.is(n, yaml.MappingNode, what) {
		return nil, false
	}
	parts, whole = make(map[string]*yaml.Node), true
	for _, f := range r.fields(n, what) {
		if !slices.Contains(known, f.key.Value) {
			hint := suggest(f.key.Value, known)
			if m := colonGlued.FindStringSubmatch(f.key.Value); m != nil && slices.Contains(known, m[1]) {
				hint = spaceHint(m)
			}
			r.fail(f.key, "PM005", "unknown key "+f.key.Value, hint)
			whole = false
			continue
		}
		parts[f.key.Value] = f.value
	}
	return parts, whole
}
