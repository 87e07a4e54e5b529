package rules

import (
	"postman/cdc"
)

// CONTRACT STUBS: the rules implementation replaces this file; the signatures stay.

// Source is a parsed, not yet type-checked rule file or directory of them.
type Source struct{ Rules []*Rule }

// Read parses a rule file, or all *.yaml and *.yml files of a directory in the order of their names.
// The error is an Errors with every mistake.
func Read(path string) (*Source, error) { panic("contract") }

// Needs is what the rules need published.
func (s *Source) Needs() []cdc.Need { panic("contract") }

// Set is a compiled rule set.
type Set struct{ Rules []*Rule }

// Compile type-checks the rules against the catalog. With a non-nil *Set and an Errors, the set holds the rules
// that are sound: at start a catalog that changed breaks only the rules it touches.
func Compile(s *Source, c *cdc.Catalog) (*Set, error) { panic("contract") }

// Revive reads back what Rule.Source returned, compiled against the shape that a match was stored with (nil for a message).
func Revive(source []byte, shape *cdc.Table) (*Rule, error) { panic("contract") }

// Plan is a set bound to a table as the stream describes it: columns are resolved. One goroutine at a time.
type Plan struct{}

// Bind resolves the set's rules of one table. Rules that no longer fit it come back as Errors beside the plan of the others;
// Errors[i].Rule names them.
func (s *Set) Bind(t *cdc.Table) (*Plan, error) { panic("contract") }

// Match tries the plan's rules on a change of its table, and calls yield for each whose verdict is not False.
func (p *Plan) Match(tx cdc.Tx, c *cdc.Change, yield func(*Rule, Verdict)) { panic("contract") }

// MatchMessage tries the rules of a transactional message (prefix with "postman.").
func (s *Set) MatchMessage(tx cdc.Tx, c *cdc.Change, yield func(*Rule, Verdict)) { panic("contract") }

// Expr is a checked expression.
type Expr struct{}

// Value evaluates an expression of to, cc, from or reply_to on a change's facts: text, a list of texts, or nil.
func (e *Expr) Value(f *Facts) (any, error) { panic("contract") }

// ReadFacts decodes a stored change: shape is what cdc.Table.Shape wrote (empty for a message), change what
// cdc.Change.AppendRest wrote. Position, CommitTime and XID are the caller's to fill in.
func ReadFacts(shape, change []byte) (*Facts, error) { panic("contract") }
