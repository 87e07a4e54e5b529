package rules

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
)

// Lint looks in rules that are sound for what is allowed and mostly not meant. All that it finds are warnings; docs/checks.md
// explains each. Those that a file's comments silence are left to [Source.Silence].
func (s *Set) Lint(c *cdc.Catalog) Errors {
	var found Errors
	for _, r := range s.Rules {
		l := &linter{rule: r, table: c.Tables[r.On.Table], catalog: c}
		l.whole()
		l.queries()
		l.condition()
		found = append(found, l.found...)
	}
	found = append(found, s.twins()...)
	found = append(found, s.secrets(c)...)
	return found.inOrder()
}

// linter looks at one rule.
type linter struct {
	rule    *Rule
	table   *cdc.Table // nil: a message
	catalog *cdc.Catalog
	found   Errors
}

func (l *linter) warn(id ID, at Place, message, hint string) {
	l.found = append(l.found, l.rule.Mistake(id, at, message, hint))
}

// Key is where a key of the rule stands; the rule itself, where it has no such key.
func (r *Rule) Key(name string) Place {
	for _, k := range r.keys {
		if ruleKeys[k.key].name == name {
			return r.at(k.where)
		}
	}
	return r.Place
}

// The limits of what makes sense for expires: a mail that is not taken at the first attempt is tried again after half a
// minute at least, and given up after a day.
const (
	leastExpires = time.Minute
	mostExpires  = 31 * 24 * time.Hour
)

// whole looks at the rule's own keys.
func (l *linter) whole() {
	if l.rule.About == "" {
		l.warn("PM210", l.rule.Place, "the rule has no about: nobody is told why the mail came", "add about: a sentence to the reader, such as: A meeting was booked for you.")
	}
	l.moving()
	switch e := l.rule.Expires; {
	case e == Duration{}:
	case e.Days == 0 && e.Time < leastExpires:
		l.warn("PM211", l.rule.Key("expires"), "a mail that expires so soon is never tried again", "a relay that is busy takes a mail minutes later: write 15m or more")
	case time.Duration(e.Days)*24*time.Hour+e.Time > mostExpires:
		l.warn("PM211", l.rule.Key("expires"), "no mail is tried for so long: it only bounds how old a held one may be when it is released",
			"write what the reader would still want to have, such as 7d, or leave it out")
	}
}

// moving looks for rules to which a row that moves to another partition looks like a new one.
func (l *linter) moving() {
	if l.table == nil || !l.table.Partitioned || !slices.Contains(l.rule.On.Ops, cdc.Insert) {
		return
	}
	l.warn("PM216", l.rule.Key("on"), fmt.Sprintf("%s is partitioned: a row that moves to another partition arrives as a delete and an insert, and is mailed as if it were new", l.table.TableName),
		"silence this where rows stay in their partition; else let the query of to give nobody for a row that is not new")
}

// queries looks at the rule's SQL.
func (l *linter) queries() {
	for _, q := range l.rule.sqls() {
		for _, n := range q.notes {
			l.warn(n.id, q.text.place(n.offset), n.message, n.hint)
		}
		for _, p := range q.params {
			l.unequal(q, p)
		}
		for _, e := range q.exclusions {
			l.excluding(q, e)
		}
	}
}

// unequal finds comparisons with <> that drop all rows where the column is NULL.
func (l *linter) unequal(q *SQL, p sqlParam) {
	from := q.Params[p.param]
	if !p.unequal || l.table == nil || from.Scope != "new" && from.Scope != "old" {
		return
	}
	if i := l.table.Column(from.Name); i >= 0 && l.table.Columns[i].NotNull {
		return
	}
	name := "@" + from.Scope + "." + from.Name
	l.warn("PM213", q.text.place(p.source), fmt.Sprintf("no row passes where %s is NULL: <> with NULL is never true in SQL", name),
		"write is distinct from "+name)
}

// folded is a name of SQL as the catalog has it: in small letters, where it stands in no quotes.
func folded(name string) string {
	if inner, ok := strings.CutPrefix(name, `"`); ok {
		return strings.TrimSuffix(inner, `"`)
	}
	return strings.ToLower(name)
}

// of is the exclusion's table. Without a schema it is taken for public.
func (e exclusion) of() cdc.TableName {
	if schema, name, ok := strings.Cut(e.table, "."); ok {
		return cdc.TableName{Schema: folded(schema), Name: folded(name)}
	}
	return cdc.TableName{Schema: "public", Name: folded(e.table)}
}

// excluding finds a `not in` whose list may hold a NULL: it is true of no row then.
func (l *linter) excluding(q *SQL, e exclusion) {
	t := l.catalog.Tables[e.of()]
	if t == nil {
		return
	}
	if i := t.Column(folded(e.column)); i < 0 || t.Columns[i].NotNull {
		return
	}
	l.warn("PM213", q.text.place(e.at), fmt.Sprintf("no row passes at all once a row of %s has no %s: not in a list with a NULL is never true in SQL", t.TableName, folded(e.column)),
		fmt.Sprintf("add to the query in the brackets: where %s is not null", e.column))
}

// sqls are all queries of the rule.
func (r *Rule) sqls() []*SQL {
	var list []*SQL
	for _, source := range slices.Concat(r.To, r.CC) {
		if source.Query != nil {
			list = append(list, source.Query)
		}
	}
	for _, load := range r.Load {
		list = append(list, load.SQL)
	}
	return list
}

// twins finds rules that tell the same people of the same changes.
func (s *Set) twins() Errors {
	var found Errors
	first := make(map[string]*Rule)
	for _, r := range s.Rules {
		key := r.gist()
		if other := first[key]; other != nil {
			found = append(found, r.Mistake("PM207", r.Place, fmt.Sprintf("it tells the same people of the same changes as rule %q at %s", other.Name, other.Place),
				"make one rule of the two, or tell them apart in when or to"))
			continue
		}
		first[key] = r
	}
	return found
}

// gist is what a rule is about and whom it tells, however it is written.
func (r *Rule) gist() string {
	parts := []string{r.On.Table.String(), r.On.Message}
	parts = append(parts, slices.Sorted(slices.Values(opNames(r.On.Ops)))...)
	parts = append(parts, "when")
	if r.When != nil {
		parts = append(parts, strings.Fields(r.When.String())...)
	}
	for _, t := range r.To {
		parts = append(parts, "to", t.Address)
		if t.Query != nil {
			parts = append(parts, strings.Fields(t.Query.text.value)...)
		}
		if t.Expr != nil {
			parts = append(parts, strings.Fields(t.Expr.String())...)
		}
	}
	return strings.Join(parts, "\x00")
}

// secretWords are what columns and keys are called that hold something to keep.
var secretWords = []string{
	"password", "passwd", "passcode", "passphrase", "secret", "token", "otp", "apikey", "ssn", "비밀번호", "주민번호", "주민등록번호",
}

// secrets finds what by its name should be called sensitive: the journal keeps the columns of watched tables as they are.
func (s *Set) secrets(c *cdc.Catalog) Errors {
	var found Errors
	seen := make(map[string]bool)
	for _, r := range s.Rules {
		of, place := r.On.Table.String(), r.at(r.tableAt)
		if r.On.Message != "" {
			of, place = "message."+r.On.Message, r.Key("on")
		}
		for _, name := range r.names(c) {
			if full := of + "." + name; secretName(name) && !r.Hides(name) && !seen[full] {
				seen[full] = true
				found = append(found, r.Mistake("PM212", place, full+" sounds like a secret, and is not called sensitive: it is kept as it is in journal, outbox and logs",
					"add it at the top of the file: sensitive: ["+full+"]"))
			}
		}
	}
	return found
}

// names are the columns of the rule's table that can hold a secret; of a message, the keys that the rule reads.
func (r *Rule) names(c *cdc.Catalog) []string {
	var names []string
	if t := c.Tables[r.On.Table]; t != nil {
		for i := range t.Columns {
			if columnType(&t.Columns[i]).is(kindText, kindOpaque, kindBytes) || t.Columns[i].Type.Base == pgtype.UUIDOID {
				names = append(names, t.Columns[i].Name)
			}
		}
		return names
	}
	for _, q := range r.sqls() {
		for _, p := range q.Params {
			if p.Scope == "message" {
				names = append(names, p.Name)
			}
		}
	}
	for _, test := range r.Tests {
		names = append(names, test.messageKeys()...)
	}
	slices.Sort(names)
	return names
}

var wordEnds = regexp.MustCompile(`[_\s-]+|([\p{Ll}\p{N}])(\p{Lu})`)

// secretName says whether a name is, or ends in, a secret's word: reset_token is, token_expires_at is not. A hash of one is
// as good as it.
func secretName(name string) bool {
	words := strings.Fields(strings.ToLower(wordEnds.ReplaceAllString(name, "$1 $2")))
	words = slices.DeleteFunc(words, func(w string) bool { return w == "hash" || w == "digest" || w == "value" })
	if len(words) == 0 {
		return false
	}
	last := strings.TrimRightFunc(words[len(words)-1], unicode.IsDigit)
	return slices.Contains(secretWords, last) || len(words) > 1 && slices.Contains(secretWords, words[len(words)-2]+last)
}
