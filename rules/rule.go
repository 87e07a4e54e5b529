// Package rules decides which committed changes are worth a mail. Analysts write the rules in YAML.
//
// What it promises:
//
//  1. A rule file is refused whole, with every mistake at once, each with its place and the way out; or it is
//     accepted, and then no rule can fail on a NULL, hang or crash the daemon.
//  2. A [Set] is immutable and safe for many goroutines; it is swapped whole.
//  3. Deciding does no I/O and reads no clock: the same change gives the same verdict, always.
//
// The meaning of an expression is documented in docs/rules.md. The expr library parses and checks types; the
// evaluator is ours, since a rule must be total over NULL and over values that the stream does not carry.
package rules

import (
	"strings"
	"time"

	"postman/cdc"
	"postman/position"
	"postman/value"
)

// Rule is one rule, as written and checked. It is immutable.
type Rule struct {
	Name, About, Was string
	Place            Place
	On               On
	When             *Expr // nil: every change
	Load             []Load
	To, CC           []Recipients
	From, ReplyTo    *Recipients // an address or an expression
	Template         string
	Locale           string
	Zone             *time.Location // nil: the configuration's
	Class            Class
	Priority         Priority
	Relay            string // that its mails take, and no other; empty: whichever is first
	Expires          Duration
	Thread           *Thread // nil: each of its mails stands alone
	HoldUncertain    bool    // uncertain: hold
	HoldOver         HoldOver
	MaxRecipients    int
	Tests            []Test
	Sensitive        []string      // the columns of this rule's table, or keys of its message, that the files call sensitive; see Hides
	Reads            []TableColumn // the sensitive columns that its queries read, of whichever table, by the names in their text

	version Version
	packed  // its text, without what is sensitive
	file    *ruleFile
	keys    []keyPlace
	unread  []text     // expressions that cannot be parsed
	tableAt where      // of the table's name
	against *cdc.Table // the table that it was checked against; nil of a message, and in a Source
}

// keyPlace is where a key of a rule stands in its file.
type keyPlace struct {
	key uint8 // index into ruleKeys
	where
}

// where is a [Place] in the rule's own file.
type where struct{ line, column int32 }

func (r *Rule) at(w where) Place { return Place{r.Place.File, int(w.line), int(w.column)} }

// Place is where something stands in a rule file, for messages. Line and Column count from 1; columns are characters.
type Place struct {
	File         string
	Line, Column int
}

// On is what triggers a rule: changes of a table, or a transactional message.
type On struct {
	Table   cdc.TableName
	Ops     []cdc.Op
	Message string // the prefix behind "postman."; empty for a table
}

// Load is a query whose rows the template sees under a name.
type Load struct {
	Name string
	All  bool // `name[]`: all rows; otherwise the first, or a row of NULLs
	SQL  *SQL
}

// Recipients is one source of recipients; exactly one field is set.
type Recipients struct {
	Query   *SQL
	Address string
	Expr    *Expr
}

// SQL is a query with typed parameters in place of its @names.
type SQL struct {
	Text   string // with $1, $2 …, one for each distinct name
	Params []Param

	text text
	*sqlSource
}

// sqlSource is what is known of a query's source. Queries that say the same share it.
type sqlSource struct {
	offsets    []int       // of the first place of each parameter
	params     []sqlParam  // every place of a parameter, in their order
	exclusions []exclusion // where a not in may find a NULL
	notes      []problem   // what is allowed and mostly not meant
}

// Place is where the query begins; zero of one that no file has.
func (q *SQL) Place() Place {
	if q.text.file == nil {
		return Place{}
	}
	return q.text.place(0)
}

// With is the query with texts in the places of its parameters.
func (q *SQL) With(text func(Param) string) string {
	var b strings.Builder
	from, source := 0, []rune(q.Text)
	for _, p := range q.params {
		b.WriteString(string(source[from:p.text]))
		b.WriteString(text(q.Params[p.param]))
		from = p.text + p.textLen
	}
	b.WriteString(string(source[from:]))
	return b.String()
}

// sqlParam is a place where a name of the source became a number in Text. Offsets and lengths count characters.
type sqlParam struct {
	param              int // index into Params
	source, text       int
	sourceLen, textLen int
	unequal            bool // it is compared with <> or !=
}

// Param is where a parameter's value comes from: @new.customer_id is {new, customer_id}; @tick is {tick, ""}.
type Param struct{ Scope, Name string }

// Class says which gates a mail passes.
type Class string

// The classes.
const (
	Transactional Class = "transactional" // skips consent, never suppression
	Notice        Class = "notice"
	Ad            Class = "ad"
)

// Priority says what may wait behind what.
type Priority string

// The priorities.
const (
	High   Priority = "high"
	Normal Priority = "normal"
	Bulk   Priority = "bulk"
)

// Duration is a span of time whose days are calendar days in the rule's zone.
type Duration struct {
	Days int
	Time time.Duration
}

// HoldOver is how many matches of the rule pass before the rest is held for an operator.
type HoldOver struct {
	Transaction, Minute, Tick int
	Row                       int // for one row in ten minutes
}

// Facts is all that a rule and its mail may know of a change.
type Facts struct {
	Position   position.Position
	Op         string
	Table      string
	New, Old   value.Row // nil where there is none
	Prefix     string    // of a message
	Message    any       // a message's content, read as JSON
	CommitTime time.Time
	XID        uint32
}

// Verdict is what a rule says of a change.
type Verdict struct {
	Truth Truth
	// Err is why the rule could not be tried on this change: a value that does not decode, a message that is no JSON.
	// It is recorded as a failed match.
	Err error
	// Missing names the column that Undetermined is due to.
	Missing string
	// Early says that an Undetermined verdict comes too early: the rule asked for the time of a commit that has not been read, as that of
	// a transaction in progress ([cdc.Tx].Time is zero).
	Early bool
}

// Truth is a truth value of Kleene's logic. Only True fires.
type Truth uint8

// The truth values.
const (
	False Truth = iota
	True
	Undetermined
)
