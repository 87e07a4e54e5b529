package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/rules"
	"postman/value"
)

// rules measures how long a change takes to find its rules among many, and how long the rules take to load. Beside it stands a
// loop over the same rules, written by hand in Go, with their values in structs and the change's columns parsed before.
//
// A rule has four parts: the operation, two equalities, and an order. Changes take turns, so that nothing stays in the
// processor's caches that would not stay there otherwise.
func (b *bench) rules(ctx context.Context) error {
	m := &matching{bench: b, runs: 40, each: 10 * time.Millisecond, sizes: []int{10, 1_000, 10_000, 100_000}, many: 10_000, took: make(map[string]float64)}
	if b.quick {
		m.runs, m.each, m.sizes, m.many = 1, time.Millisecond, []int{10, 1_000}, 1_000
	}
	for _, step := range []func() error{m.signatures, m.manySignatures, m.ranges, m.load} {
		if err := step(); err != nil {
			return fmt.Errorf("rules: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	headline := fmt.Sprintf("rules: a change among many rules, beside a loop over all of them; the least of %d runs of %v", m.runs, m.each)
	return table(b.out, headline, m.lines)
}

// matching is the rules' benchmark.
type matching struct {
	*bench
	runs  int
	each  time.Duration
	sizes []int              // numbers of rules
	many  int                // one that is a lot
	took  map[string]float64 // nanoseconds
	lines []line
}

// deals is the table that changes.
var deals = &cdc.Table{
	TableName: cdc.TableName{Schema: "public", Name: "deals"}, OID: 1, Identity: cdc.IdentityFull,
	Columns: []cdc.Column{
		column("id", pgtype.Int8OID), column("account_id", pgtype.Int8OID), column("status", pgtype.TextOID), column("amount", pgtype.NumericOID),
		column("region", pgtype.TextOID), column("owner_id", pgtype.Int8OID), column("source", pgtype.TextOID), column("updated_at", pgtype.TimestamptzOID),
	},
}

func column(name string, oid uint32) cdc.Column {
	return cdc.Column{Column: value.Column{Name: name, Type: value.Type{OID: oid, Base: oid, Name: name}}, Key: true}
}

// deal is one rule of the loop, or one change that it has been parsed of: numbers of the values of each column.
type deal struct {
	account, status, region, owner, source int64
	amount                                 int64
}

// change is the same as the stream sends it.
func (d *deal) change() *cdc.Change {
	row := cdc.MakeTuple([]value.Datum{
		value.Of("1"), value.Of(strconv.FormatInt(d.account, 10)), value.Of(status(d.status)), value.Of(strconv.FormatInt(d.amount, 10) + ".50"),
		value.Of(fmt.Sprint("region ", d.region)), value.Of(strconv.FormatInt(d.owner, 10)), value.Of(fmt.Sprint("source ", d.source)),
		value.Of("2026-03-04 15:30:00.123456+00"),
	})
	return &cdc.Change{Op: cdc.Update, Table: deals, New: row, Old: row}
}

func status(n int64) string { return fmt.Sprint("status ", n) }

// plan writes rules to a file, and loads them as postman does.
func (m *matching) plan(n int, when func(i int) string) (*rules.Plan, time.Duration, error) {
	var text strings.Builder
	text.WriteString("rules:\n")
	for i := range n {
		fmt.Fprintf(&text, `
  - name: rule-%d
    about: A deal of yours is worth a look.
    on: {table: deals, ops: [update]}
    when: op == "update" and %s
    to: {query: select email from staff where id = @new.owner_id}
    template: deal
`, i, when(i))
	}
	path := filepath.Join(m.dir, "rules.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		return nil, 0, err
	}
	begun := time.Now()
	source, err := rules.Read(path)
	if err != nil {
		return nil, 0, err
	}
	set, err := rules.Compile(source, &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{deals.TableName: deals}})
	if err != nil {
		return nil, 0, err
	}
	plan, err := set.Bind(deals)
	return plan, time.Since(begun), err
}

// least runs one after another of the changes for a while, several times, and returns the quickest run's nanoseconds for one.
func (m *matching) least(one func(i int)) float64 {
	one(0)       // the first change of a plan is an audit
	runtime.GC() // of what loading left behind
	best := math.Inf(1)
	for range m.runs {
		begun, n := time.Now(), 0
		for time.Since(begun) < m.each {
			for range 64 {
				one(n)
				n++
			}
		}
		best = min(best, float64(time.Since(begun))/float64(n))
	}
	return best
}

// turns is how many changes take turns.
const turns = 1024

// match measures a plan on changes, of which each must have so many matches.
func (m *matching) match(plan *rules.Plan, matches int, change func(i int) *deal) (float64, error) {
	var changes [turns]*cdc.Change
	for i := range changes {
		changes[i] = change(i).change()
	}
	count := func(*rules.Rule, rules.Verdict) {}
	for _, c := range changes {
		n := 0
		plan.Match(cdc.Tx{}, c, func(*rules.Rule, rules.Verdict) { n++ })
		if n != matches {
			return 0, fmt.Errorf("%d matches, not %d", n, matches)
		}
	}
	return m.least(func(i int) { plan.Match(cdc.Tx{}, changes[i%turns], count) }), nil
}

// loop measures the hand-written loop on the same.
func (m *matching) loop(all []deal, change func(i int) *deal, holds func(rule, change *deal) bool) float64 {
	var changes [turns]*deal
	for i := range changes {
		changes[i] = change(i)
	}
	matches := 0
	return m.least(func(i int) {
		for r := range all {
			if holds(&all[r], changes[i%turns]) {
				matches++
			}
		}
	})
}

// signatures has rules on two columns each: ten of every account, one for each status.
func (m *matching) signatures() error {
	const statuses = 10
	for _, n := range m.sizes {
		accounts := int64(n / statuses)
		rule := func(i int) deal { return deal{account: int64(i) / statuses, status: int64(i) % statuses, amount: 500} }
		plan, _, err := m.plan(n, func(i int) string {
			r := rule(i)
			return fmt.Sprintf("new.account_id == %d and new.status == %q and new.amount > %d", r.account, status(r.status), r.amount)
		})
		if err != nil {
			return err
		}
		all := make([]deal, n)
		for i := range all {
			all[i] = rule(i)
		}
		for _, kind := range []struct {
			what    string
			matches int
			change  func(i int) *deal
		}{
			{"no match", 0, func(i int) *deal {
				return &deal{account: 1_000_000 + int64(i), status: int64(i) % statuses, amount: 1000}
			}},
			{"no match, account known", 0, func(i int) *deal { return &deal{account: int64(i) * 7919 % accounts, status: statuses, amount: 1000} }},
			{"one match", 1, func(i int) *deal {
				return &deal{account: int64(i) * 7919 % accounts, status: int64(i) % statuses, amount: 1000}
			}},
		} {
			ours, err := m.match(plan, kind.matches, kind.change)
			if err != nil {
				return fmt.Errorf("%s of %d: %w", kind.what, n, err)
			}
			what := fmt.Sprintf("%s, %d rules", kind.what, n)
			m.took[what] = ours
			m.lines = append(m.lines, line{what: what, unit: "ns", ours: []float64{ours}, bare: []float64{m.loop(all, kind.change, func(r, c *deal) bool {
				return r.account == c.account && r.status == c.status && c.amount > r.amount
			})}})
		}
	}
	m.promises()
	return nil
}

// promises are the bars, each by itself.
func (m *matching) promises() {
	for _, p := range []struct {
		what string
		n    int
		bar  float64
	}{{"no match", m.many, 150}, {"one match", m.many, 300}} {
		what := fmt.Sprintf("%s, %d rules", p.what, p.n)
		m.lines = append(m.lines, line{what: what, unit: "ns", ours: []float64{m.took[what]}, bar: p.bar})
	}
	for i, n := range m.sizes {
		if bar := []float64{0, 0, 1.5, 2}[i]; bar > 0 {
			grown := m.took[fmt.Sprintf("no match, %d rules", n)] / m.took["no match, 10 rules"]
			m.lines = append(m.lines, line{what: fmt.Sprintf("no match, %d to 10 rules", n), unit: "×", ours: []float64{grown}, bar: bar})
		}
	}
}

// manySignatures has rules on twenty pairs of columns.
func (m *matching) manySignatures() error {
	const pairs = 20
	columns := []string{"account_id == %d", "status == \"status %d\"", "region == \"region %d\"", "owner_id == %d", "source == \"source %d\"", "amount == %d.5", "id == %d"}
	var signatures [][2]string
	for i, a := range columns {
		for _, b := range columns[i+1:] {
			signatures = append(signatures, [2]string{a, b})
		}
	}
	plan, _, err := m.plan(m.many, func(i int) string {
		s, v := signatures[i%pairs], 2+i/pairs
		return fmt.Sprintf("new."+s[0]+" and new."+s[1]+" and new.amount > %d", v, v+1, v)
	})
	if err != nil {
		return err
	}
	for _, kind := range []struct {
		what   string
		change func(i int) *deal
	}{
		{"20 signatures, values unknown", func(i int) *deal {
			v := int64(1_000_000 + i)
			return &deal{account: v, status: v, region: v, owner: v, source: v, amount: v}
		}},
		{"20 signatures, values known", func(i int) *deal {
			v := int64(2 + i%(m.many/25)) // of no two columns the values that one rule asks for
			return &deal{account: v, status: v, region: v, owner: v, source: v, amount: v}
		}},
	} {
		ours, err := m.match(plan, 0, kind.change)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.what, err)
		}
		m.lines = append(m.lines, line{what: fmt.Sprintf("%s, %d rules", kind.what, m.many), unit: "ns", ours: []float64{ours}})
	}
	return nil
}

// ranges has rules on an interval each, of which ten overlap everywhere.
func (m *matching) ranges() error {
	const width = 10
	n := m.many
	rule := func(i int) deal { return deal{amount: int64(i)} }
	plan, _, err := m.plan(n, func(i int) string { return fmt.Sprintf("new.amount >= %d and new.amount < %d", i, i+width) })
	if err != nil {
		return err
	}
	change := func(i int) *deal { return &deal{amount: width + int64(i)*7919%int64(n-2*width)} }
	ours, err := m.match(plan, width, change)
	if err != nil {
		return err
	}
	all := make([]deal, n)
	for i := range all {
		all[i] = rule(i)
	}
	m.lines = append(m.lines, line{what: fmt.Sprintf("%d range matches, %d rules", width, n), unit: "ns", ours: []float64{ours}, bare: []float64{m.loop(all, change, func(r, c *deal) bool {
		return c.amount >= r.amount && c.amount < r.amount+width
	})}})
	return nil
}

// load reads and checks rules, and builds their index.
func (m *matching) load() error {
	var took []float64
	for range min(m.runs, 5) {
		_, d, err := m.plan(m.many, func(i int) string {
			return fmt.Sprintf("new.account_id == %d and new.status == %q and new.amount > %d", i/10, status(int64(i%10)), i)
		})
		if err != nil {
			return err
		}
		took = append(took, d.Seconds())
	}
	m.lines = append(m.lines, line{what: fmt.Sprintf("loading %d rules", m.many), unit: "s", ours: []float64{slices.Min(took)}, bar: 1.5})
	return nil
}
