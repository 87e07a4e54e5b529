package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"postman/cdc"
)

// Source is a parsed, not yet type-checked rule file or directory of them.
type Source struct {
	Rules []*Rule
	// sensitive are the entries of all files: a column is sensitive whichever file says so.
	sensitive []sensitive
	ignores   []ignore
}

// sensitive is an entry of a file's sensitive list: a column of a table, or a key of a message.
type sensitive struct {
	text    string
	table   cdc.TableName
	message string
	name    string
	place   Place
	line    string
}

// Read parses rule files; of a directory, all its *.yaml and *.yml files in the order of their names (not those whose
// names begin with a dot). The error is an Errors with every mistake.
//
// Beside an Errors there may be a Source with what could be read. It is there for [Compile] to find more mistakes in,
// and for nothing else.
func Read(paths ...string) (*Source, error) {
	var names []string
	var errs Errors
	for _, path := range paths {
		files, err := ruleFiles(path)
		if err != nil {
			errs = append(errs, &Error{ID: "PM001", Place: Place{File: path}, Message: err.Error(), Hint: "name a rule file, or a directory with *.yaml files; postman new RULE --table T writes a first one"})
		}
		names = append(names, files...)
	}
	if len(names) == 0 {
		return nil, errs
	}
	s := new(Source)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			errs = append(errs, &Error{ID: "PM001", Place: Place{File: name}, Message: fmt.Sprintf("reading the rules: %s", reason(err))})
			continue
		}
		errs = append(errs, s.add(name, content)...)
	}
	errs = append(errs, s.unite()...)
	return s, errs.orNil()
}

func ruleFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the rules: %s", reason(err))
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("reading the rules: %s", reason(err))
	}
	var names []string
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml") {
			names = append(names, filepath.Join(path, e.Name()))
		}
	}
	if len(names) == 0 {
		return nil, errors.New("reading the rules: the directory holds no *.yaml file")
	}
	return names, nil
}

// reason is what the system says of a file, without the file's name: the place tells it.
func reason(err error) string {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err.Error()
	}
	return err.Error()
}

// add parses one file.
func (s *Source) add(name string, content []byte) Errors {
	file := newFile(name, content)
	if errs, ok := s.addParts(file, content, partSize); ok {
		return errs.inOrder()
	}
	r := newReader(file)
	if root := r.parse(content); root != nil {
		s.Rules = append(s.Rules, r.rules(r.top(root, s))...)
		s.ignores = append(s.ignores, r.ignores(root)...)
	}
	return r.errs.inOrder()
}

// top reads a file's top level, and returns the nodes of its rules.
func (r *reader) top(root *yaml.Node, s *Source) []*yaml.Node {
	if root.Kind != yaml.MappingNode {
		r.fail(root, "PM008", "a rule file is a mapping with the key rules, and this is "+kindName(root), "write rules: and a list of them")
		return nil
	}
	r.topTraps(root)
	var list *yaml.Node
	for _, f := range r.fields(root, "") {
		switch f.key.Value {
		case "rules":
			list = f.value
		case "sensitive":
			s.sensitive = append(s.sensitive, r.sensitive(f.value)...)
		default:
			r.fail(f.key, "PM005", "unknown key "+f.key.Value+" at the top of a rule file", suggest(f.key.Value, []string{"rules", "sensitive"}))
		}
	}
	if list == nil {
		r.fail(root, "PM007", "the file has no rules", "write rules: and a list of them")
		return nil
	}
	return r.items(list, ruleList)
}

// rules reads rules.
func (r *reader) rules(list []*yaml.Node) (rules []*Rule) {
	for some := range slices.Chunk(list, partSize) {
		var texts []byte
		var ends []int
		first := len(rules)
		for _, n := range some {
			if rule := r.readRule(n); rule != nil {
				texts = append(texts, storedText(n)...)
				rules, ends = append(rules, rule), append(ends, len(texts))
			}
		}
		pack(rules[first:], texts, ends)
	}
	return rules
}

// topTraps looks for traps outside of the rules: those inside are reported with their rule's name.
func (r *reader) topTraps(root *yaml.Node) {
	r.keys(root)
	for i := 1; i < len(root.Content); i += 2 {
		if root.Content[i-1].Value != "rules" || root.Content[i].Kind != yaml.SequenceNode {
			r.traps(root.Content[i])
			continue
		}
		list := *root.Content[i]
		list.Content = nil
		r.traps(&list)
	}
}

func (r *reader) sensitive(n *yaml.Node) []sensitive {
	var entries []sensitive
	for _, item := range r.items(n, "a list of names such as customers.phone or message.password_reset.token") {
		name, ok := r.scalar(item, "a name")
		if !ok {
			continue
		}
		e := sensitive{text: name, place: Place{r.file.name, item.Line, item.Column}, line: r.file.line(item.Line)}
		cut := strings.LastIndexByte(name, '.')
		message, isMessage := strings.CutPrefix(name[:max(cut, 0)], "message.")
		switch e.name = name[cut+1:]; {
		case cut <= 0 || e.name == "":
			r.fail(item, "PM017", name+" names no column of a table and no key of a message",
				"write table.column, schema.table.column or message.name.key")
			continue
		case isMessage:
			e.message = message
		default:
			e.table = tableName(name[:cut])
		}
		entries = append(entries, e)
	}
	return entries
}

// tableName reads schema.name; without a schema it is public. Names are exact.
func tableName(s string) cdc.TableName {
	if schema, name, ok := strings.Cut(s, "."); ok {
		return cdc.TableName{Schema: schema, Name: name}
	}
	return cdc.TableName{Schema: "public", Name: s}
}

// unite checks the rules of all files against each other, and gives each what the files say is sensitive of it.
func (s *Source) unite() Errors {
	errs := s.names()
	var messages []string
	for _, r := range s.Rules {
		if r.On.Message != "" {
			messages = append(messages, r.On.Message)
		}
		r.reads(s.sensitive)
		for _, e := range s.sensitive {
			if (e.message != "" && e.message == r.On.Message || e.message == "" && e.table == r.On.Table) && !r.Hides(e.name) {
				r.Sensitive = append(r.Sensitive, e.name)
			}
		}
		r.settleVersion()
	}
	for _, e := range s.sensitive {
		if e.message != "" && !slices.Contains(messages, e.message) {
			errs = append(errs, &Error{
				"PM017", e.place, "", fmt.Sprintf("no rule is on the message %s", e.message), suggest(e.message, messages), e.line,
			})
		}
	}
	return errs
}

// Clone is a source of its own with the same rules.
func (s *Source) Clone() *Source {
	clone := *s
	clone.Rules = slices.Clone(s.Rules)
	return &clone
}

// names checks that no two rules claim one name, or the identity that goes with a former name.
func (s *Source) names() Errors {
	var errs Errors
	claimed := make(map[string]*Rule)
	for _, r := range s.Rules {
		if other, ok := claimed[r.Name]; ok && r.Name != "" {
			errs = append(errs, r.Mistake("PM012", r.Place, fmt.Sprintf("the name is taken by the rule at %s", other.Place), "names are unique: rename one of them"))
			continue
		}
		claimed[r.Name] = r
	}
	for _, r := range s.Rules {
		if other, ok := claimed[r.Was]; ok && r.Was != "" {
			errs = append(errs, r.Mistake("PM012", r.Place, fmt.Sprintf("was: %s is claimed by the rule at %s as well", r.Was, other.Place),
				"a rule keeps the identity of a rule that is gone: drop was, or rename the other rule"))
			continue
		}
		if r.Was != "" {
			claimed[r.Was] = r
		}
	}
	return errs
}

// Mistake is what is wrong with a rule at a place in its file.
func (r *Rule) Mistake(id ID, p Place, message, hint string) *Error {
	e := &Error{ID: id, Place: p, Rule: r.Name, Message: message, Hint: hint}
	if r.file != nil && p.File == r.file.name {
		e.Line = r.file.line(p.Line)
	}
	return e
}

// Tables are all that the files name in a way that a catalog can say something of: those that rules are on, those with sensitive
// columns, and those that a query leaves rows out by.
func (s *Source) Tables() []cdc.TableName {
	var names []cdc.TableName
	add := func(n cdc.TableName) {
		if n != (cdc.TableName{}) && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, n := range s.Needs() {
		add(n.Table)
	}
	for _, e := range s.sensitive {
		add(e.table)
	}
	for _, r := range s.Rules {
		for _, q := range r.sqls() {
			for _, e := range q.exclusions {
				add(e.of())
			}
		}
	}
	return names
}

// Needs is what the rules need published.
func (s *Source) Needs() []cdc.Need { return needs(s.Rules) }

// needs lists each table once, in the order of the rules, with the operations of all its rules.
func needs(rules []*Rule) []cdc.Need {
	var list []cdc.Need
	for _, r := range rules {
		if r.On.Message != "" || r.On.Table == (cdc.TableName{}) {
			continue
		}
		i := slices.IndexFunc(list, func(n cdc.Need) bool { return n.Table == r.On.Table })
		if i < 0 {
			i, list = len(list), append(list, cdc.Need{Table: r.On.Table})
		}
		for _, op := range r.On.Ops {
			if !slices.Contains(list[i].Ops, op) {
				list[i].Ops = append(list[i].Ops, op)
			}
		}
	}
	for _, n := range list {
		slices.Sort(n.Ops)
	}
	return list
}
