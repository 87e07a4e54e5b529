package rules

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
)

// Draft is a rule to begin with, its mail and its tests: sound as they are, and there to be edited.
type Draft struct {
	Name     string
	Template string
	Table    *cdc.Table // nil: a message
	Ops      []cdc.Op
	Message  string
	Query    string // for recipients; empty: To
	To       string // an expression or {address: …}, as YAML
}

// Rule is the rule as an item of a YAML list, its hyphen indented by so many spaces.
func (d *Draft) Rule(indent int) string {
	var b strings.Builder
	w := func(format string, args ...any) {
		for line := range strings.Lines(fmt.Sprintf(format, args...)) {
			b.WriteString(strings.Repeat(" ", indent) + line)
		}
	}
	w("# docs/rules.md explains every key. postman check says what is wrong, with the way out.\n")
	w("- name: %s\n", d.Name)
	w("  # The reader sees this below the mail: why it came.\n")
	w("  about: %s\n", yamlText(d.why()))
	if d.Table == nil {
		w("  # The application says so: select pg_logical_emit_message(true, 'postman.%s', '{\"email\": \"…\"}')\n", d.Message)
		w("  on: {message: %s}\n", d.Message)
	} else {
		if d.Table.Partitioned && slices.Contains(d.Ops, cdc.Insert) {
			w("  # A row that moves to another partition arrives as a delete and an insert: postman check warns of that (PM216).\n")
		}
		w("  on: {table: %s, ops: [%s]}\n", yamlText(d.Table.String()), strings.Join(opNames(d.Ops), ", "))
		w("%s", d.columns())
		w("%s", d.when())
	}
	w("%s", d.load())
	w("%s", d.recipients())
	w("  template: %s # templates/%s.html\n", d.Template, d.Template)
	if d.showsMoments() && !strings.Contains(d.Query, "timezone") {
		w("  # The zone that moments are shown in to recipients of whom none is known; postman check asks for it.\n  # timezone: Asia/Seoul\n")
	}
	w("  # What you expect of the rule. A column that is left out is NULL.\n")
	w("  tests:\n%s", d.tests())
	return b.String()
}

func (d *Draft) why() string {
	if d.Table == nil {
		return "You asked for it."
	}
	return "Something happened in " + d.Table.Name + " that concerns you."
}

// columns tells which columns there are, for whoever edits the rule.
func (d *Draft) columns() string {
	var b strings.Builder
	b.WriteString("  # Its columns:\n")
	for i := range d.Table.Columns {
		c := &d.Table.Columns[i]
		line := c.Name + "  " + c.Type.Name
		if len(c.Enum) > 0 {
			line += ": " + strings.Join(c.Enum, ", ")
		}
		if !c.NotNull {
			line += ", may be NULL"
		}
		b.WriteString("  #   " + strings.Join(strings.Fields(printable(line)), " ") + "\n")
	}
	return b.String()
}

// printable leaves out what a name may hold and a comment or a mail may not.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && !strings.ContainsRune("<>&{}", r) {
			return r
		}
		return ' '
	}, s)
}

// side is the row that every operation of the draft has.
func (d *Draft) side() string {
	if slices.Contains(d.Ops, cdc.Delete) || slices.Contains(d.Ops, cdc.Truncate) {
		return "old"
	}
	return "new"
}

// rows says whether the draft's operations have a row in common that the stream tells.
func (d *Draft) rows() bool {
	return !slices.Contains(d.Ops, cdc.Truncate) && (d.side() == "new" || !slices.Contains(d.Ops, cdc.Insert))
}

// subject is a column that tells changes apart: of an enum, or else of truth values. nil: there is none.
func (d *Draft) subject() *cdc.Column {
	for _, fits := range []func(c *cdc.Column) bool{
		func(c *cdc.Column) bool { return len(c.Enum) > 0 && c.Type.Base == pgtype.TextOID },
		func(c *cdc.Column) bool { return c.Type.Base == pgtype.BoolOID },
	} {
		for i := range d.Table.Columns {
			if c := &d.Table.Columns[i]; d.told(c.Name) && fits(c) {
				return c
			}
		}
	}
	return nil
}

// when is the draft's condition, with a word on how to write one.
func (d *Draft) when() string {
	teach := "  # Which changes: new is the row as it is now, old as it was. NULL is nil. An enum's label is written as text.\n"
	teach += d.teachOld()
	c := d.subject()
	if c == nil {
		return teach + "  # when: |\n  #   " + printable(exprColumn(d.side(), d.Table.Columns[0].Name)) + " != nil\n"
	}
	condition := exprColumn(d.side(), c.Name)
	if len(c.Enum) > 0 {
		condition += " == " + strconv.Quote(c.Enum[0])
	}
	switch {
	case d.becomes(c):
		teach += "  # changed() is true of the update that made it so, and not of all that come after it.\n"
		condition += " and changed(" + exprColumn("new", c.Name) + ")"
	case d.side() == "new" && slices.Contains(d.Ops, cdc.Update):
		teach += d.teachSaves(c)
	}
	return teach + "  when: |\n    " + condition + "\n"
}

// teachSaves tells that the draft's condition on a column is true at each save.
func (d *Draft) teachSaves(c *cdc.Column) string {
	if d.Table.Partitioned {
		return "  # Of an update this is true as often as the row is saved.\n  # postman: ignore PM214: every save of such a row is told\n"
	}
	return "  # Of an update this is true as often as the row is saved. For the moment when it becomes so add, once old has the column,\n" +
		"  #   and changed(" + printable(exprColumn("new", c.Name)) + ")\n" +
		"  # postman: ignore PM214: every save of such a row is told until then\n"
}

// becomes says whether the draft's condition can tell that a column became what it is.
func (d *Draft) becomes(c *cdc.Column) bool {
	return d.side() == "new" && slices.Contains(d.Ops, cdc.Update) && (c.Key || d.Table.Identity == cdc.IdentityFull)
}

// teachOld tells which columns of the old row there are.
func (d *Draft) teachOld() string {
	if !slices.Contains(d.Ops, cdc.Update) && !slices.Contains(d.Ops, cdc.Delete) {
		return ""
	}
	if d.Table.Identity == cdc.IdentityFull {
		return "  # old has all columns.\n"
	}
	var names []string
	for i := range d.Table.Columns {
		if c := &d.Table.Columns[i]; c.Key {
			names = append(names, printable(exprColumn("old", c.Name)))
		}
	}
	if d.Table.Partitioned {
		return "  # Of old there is " + cmp.Or(list(names, "and"), "nothing") + ": of a partitioned table Postgres tells no more, whatever its REPLICA IDENTITY.\n"
	}
	return "  # Of old there is " + cmp.Or(list(names, "and"), "nothing") + ". All of it comes with: ALTER TABLE " + printable(quoteTable(d.Table.TableName)) + " REPLICA IDENTITY FULL;\n"
}

func (d *Draft) load() string {
	of := "@message.id"
	if d.Table != nil {
		of = printable(sqlColumn(d.side(), d.Table.Columns[0].Name))
	}
	return "  # Rows of other tables for the mail, by name: {{.other.name}}. " + of + " is a parameter, and needs no quotes.\n" +
		"  # load:\n  #   other: select name from others where id = " + of + "\n"
}

func (d *Draft) recipients() string {
	const teach = "  # Who gets it: a query with the column email (name, locale and timezone have a meaning too), an address, or an expression.\n"
	if d.Query == "" {
		return teach + "  to: " + d.To + "\n"
	}
	return teach + "  to:\n    query: |\n      " + d.Query + "\n"
}

// tests are a change that the rule matches and, where the draft has a condition, one that it does not.
func (d *Draft) tests() string {
	if d.Table == nil {
		return "    - message: {email: kim@example.com, name: Kim}\n      match: true\n"
	}
	op := d.Ops[0]
	yes, no := "", ""
	c := d.subject()
	if c != nil {
		values := []string{"true", "false"}
		if len(c.Enum) > 0 {
			values = nil
			for _, label := range c.Enum {
				values = append(values, yamlText(label))
			}
		}
		yes = yamlText(c.Name) + ": " + values[0]
		if len(values) > 1 {
			no = yamlText(c.Name) + ": " + values[1]
		}
	}
	if c != nil && d.becomes(c) {
		return "    - " + d.update(no, yes) + "\n      match: true\n    - " + d.update(yes, yes) + " # something else was saved\n      match: false\n"
	}
	tests := "    - " + d.change(op, yes) + "\n      match: true\n"
	if no != "" {
		tests += "    - " + d.change(op, no) + "\n      match: false\n"
	}
	return tests
}

// update is one in a test, from one value of a column to another.
func (d *Draft) update(before, after string) string {
	return "update: {old: " + d.row(before) + ", new: " + d.row(after) + "}"
}

// change is a row of the table in a test.
func (d *Draft) change(op cdc.Op, column string) string {
	if op == cdc.Update {
		return d.update(column, column)
	}
	return op.String() + ": " + d.row(column)
}

// row has its key and a column more.
func (d *Draft) row(column string) string {
	var values []string
	for i := range d.Table.Columns {
		if c := &d.Table.Columns[i]; c.PK && !strings.HasPrefix(column, yamlText(c.Name)+":") {
			values = append(values, yamlText(c.Name)+": "+sampleKey(c))
		}
	}
	if column != "" {
		values = append(values, column)
	}
	return "{" + strings.Join(values, ", ") + "}"
}

// sampleKey is a value of a primary key.
func sampleKey(c *cdc.Column) string {
	switch c.Type.Base {
	case pgtype.UUIDOID:
		return "00000000-0000-4000-8000-000000000001"
	case pgtype.DateOID, pgtype.TimestampOID:
		return `"2026-03-04"`
	case pgtype.TimestamptzOID:
		return `"2026-03-04 09:00+09"`
	case pgtype.BoolOID:
		return "true"
	case pgtype.ByteaOID:
		return `"\\x01"`
	}
	switch {
	case len(c.Enum) > 0:
		return yamlText(c.Enum[0])
	case columnType(c).kind == kindArray || columnType(c).kind == kindJSON:
		return `"{}"`
	}
	return "1"
}

// Mail is the template, with a word on how to write one.
func (d *Draft) Mail() string {
	what, rows := d.Message, "<p>{{get .message \"name\"}}</p>\n"
	if d.Table != nil {
		what, rows = cmp.Or(strings.TrimSpace(printable(d.Table.Name)), "a change"), d.facts()
	}
	return "{{/* The mail of the rule " + d.Name + ". docs/templates.md explains the language. Save it, and it is live a moment later.\n" +
		"     .new and .old are the row, .to is the recipient; what load gives stands under its name. NULL prints nothing.\n" +
		"     The rule's about is added below, in the language that locale names. */}}\n" +
		"{{define \"locale\"}}en{{end}}\n" +
		"{{define \"subject\"}}" + what + d.number() + "{{end}}\n\n" +
		"{{define \"body\"}}\n<p>{{with .to.name}}{{.}}, {{end}}hello.</p>\n" + rows + "{{end}}\n"
}

// number is the row's key in the subject.
func (d *Draft) number() string {
	if d.Table == nil {
		return ""
	}
	for i := range d.Table.Columns {
		if c := &d.Table.Columns[i]; c.PK && d.told(c.Name) {
			return " {{" + d.field(c.Name) + "}}"
		}
	}
	return ""
}

// shown are the columns that the mail shows: the first that are plain to read, and no secrets.
func (d *Draft) shown() []*cdc.Column {
	const most = 8
	var list []*cdc.Column
	for i := range d.Table.Columns {
		c := &d.Table.Columns[i]
		plain := columnType(c).is(kindBool, kindWhole, kindNumber, kindText, kindOpaque, kindInstant, kindLocal, kindDay)
		if plain && d.told(c.Name) && !secretName(c.Name) && len(list) < most {
			list = append(list, c)
		}
	}
	return list
}

// showsMoments says whether the mail looks different in another time zone.
func (d *Draft) showsMoments() bool {
	if d.Table == nil {
		return false
	}
	named := func(c *cdc.Column) bool { return c.PK && d.told(c.Name) } // in the subject
	shown := d.shown()
	if i := slices.IndexFunc(d.Table.Columns, func(c cdc.Column) bool { return named(&c) }); i >= 0 {
		shown = append(shown, &d.Table.Columns[i])
	}
	return slices.ContainsFunc(shown, func(c *cdc.Column) bool { return columnType(c).is(kindInstant) })
}

// facts lists some of the row's columns.
func (d *Draft) facts() string {
	var b strings.Builder
	for _, c := range d.shown() {
		fmt.Fprintf(&b, "<tr><td>%s</td><td>{{%s}}</td></tr>\n", printable(c.Name), d.field(c.Name))
	}
	if b.Len() == 0 {
		return ""
	}
	return "<table>\n" + b.String() + "</table>\n"
}

// goName is a name as text/template's lexer takes it: letters and decimal digits (unicode.IsLetter, unicode.IsDigit), and no m².
var goName = regexp.MustCompile(`^[\p{L}_][\p{L}\p{Nd}_]*$`)

// field is a column in a template.
func (d *Draft) field(name string) string {
	if goName.MatchString(name) {
		return "." + d.side() + "." + name
	}
	return "get ." + d.side() + " " + strconv.Quote(name)
}

// exprColumn is a column in an expression.
func exprColumn(row, name string) string {
	if regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`).MatchString(name) {
		return row + "." + name
	}
	return row + "[" + strconv.Quote(name) + "]"
}

// sqlColumn is a column as a parameter of a query.
func sqlColumn(row, name string) string {
	if goName.MatchString(name) {
		return "@" + row + "." + name
	}
	return "@" + row + "." + quoteName(name)
}

var (
	plainText = regexp.MustCompile(`^[\p{L}_][\p{L}\p{N}_. -]*[\p{L}\p{N}_.]$|^\p{L}$`)
	yamlWords = []string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
)

// yamlText is a text as YAML, in quotes where it needs them.
func yamlText(s string) string {
	if plainText.MatchString(s) && !slices.Contains(yamlWords, strings.ToLower(s)) {
		return s
	}
	return strconv.Quote(s)
}

// Parameter is a column of the changed row as a parameter of a query; empty where the stream does not tell it.
func (d *Draft) Parameter(column string) string {
	if !d.told(column) {
		return ""
	}
	return sqlColumn(d.side(), column)
}

// Address is a column of the changed row as an expression for recipients; empty where there is no such column, the stream does
// not tell it, or it can hold no address.
func (d *Draft) Address(column string) string {
	if !d.told(column) || !columnType(&d.Table.Columns[d.Table.Column(column)]).addressable() {
		return ""
	}
	return exprColumn(d.side(), column)
}

// told says whether the stream tells a column of the draft's row.
func (d *Draft) told(column string) bool {
	i := d.Table.Column(column)
	return i >= 0 && d.rows() && (d.side() == "new" || d.Table.Columns[i].Key || d.Table.Identity == cdc.IdentityFull)
}
