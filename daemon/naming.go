package daemon

import (
	"fmt"
	"slices"

	"postman/cdc"
	"postman/rules"
	"postman/value"
)

// naming tells which table the rules mean by a name: one that was renamed for a while, or for good, is the same table all the same, and
// what came under its other name is what its rules have missed.
type naming struct {
	catalog *cdc.Catalog  // as the database is now; nil: it is not at hand
	known   []publishedOp // as it was
	epoch   uint32        // that it is in now: in a former one another table may have had an OID
}

// oid is the table that has a name now; 0: it is not known.
func (n *naming) oid(name cdc.TableName) uint32 {
	if oid := oidIn(n.catalog, name); oid != 0 {
		return oid
	}
	for i := range n.known {
		if p := &n.known[i]; p.Table == name && p.ToEpoch == 0 && p.OID != 0 {
			return p.OID
		}
	}
	return 0
}

// now is the name that a table of an epoch has now which rules know; empty: they know none.
func (n *naming) now(t *cdc.Table, epoch uint32) cdc.TableName {
	if n.oid(t.TableName) == t.OID {
		return t.TableName
	}
	if n.catalog != nil && epoch == n.epoch {
		for name, c := range n.catalog.Tables {
			if c.OID == t.OID {
				return name
			}
		}
	}
	for i := range n.known {
		if p := &n.known[i]; p.OID == t.OID && n.oid(p.Table) == t.OID && n.knows(p, epoch) {
			return p.Table
		}
	}
	return cdc.TableName{}
}

// knows says whether a table had the OID in an epoch already that it had when it was published.
func (n *naming) knows(p *publishedOp, epoch uint32) bool {
	return epoch == n.epoch || p.Epoch <= epoch && (p.ToEpoch == 0 || epoch <= p.ToEpoch)
}

// lostName is a rule on a name that another table has now than it had once.
type lostName struct {
	rule  string
	ops   []cdc.Op
	until spot // when that is known to have been so at last
	why   string
}

// lost are the rules on names that a table had once, has not in this shape, and has no more.
func (n *naming) lost(set *rules.Set, t *cdc.Table, epoch uint32) (all []lostName) {
	for i := range n.known {
		p := &n.known[i]
		if p.OID != t.OID || p.Table == t.TableName || n.oid(p.Table) == t.OID || !n.knows(p, epoch) {
			continue
		}
		until := spot{p.ToEpoch, p.To}
		if p.ToEpoch == 0 {
			until = spot{^uint32(0), 0}
		}
		for _, r := range set.Rules {
			if r.On.Message == "" && r.On.Table == p.Table && slices.Contains(r.On.Ops, p.Op) {
				all = append(all, lostName{r.Name, []cdc.Op{p.Op}, until, fmt.Sprintf("the table %s was called %s then, and another one has its name now", p.Table, t.TableName)})
			}
		}
	}
	return all
}

// labelled is a column of an enum that conditions look at.
type labelled struct {
	*cdc.Column     // as it is now
	index       int // in the table as it was
	rules       [cdc.Emit][]string
}

// labels are the columns of a table as it was in which a value may be no label of its type now: then the label had another name, or the
// column another type, which is how a label is removed, and the rule, which knows the labels that there are now, cannot tell it.
func (n *naming) labels(set *rules.Set, t *cdc.Table) (all []labelled) {
	if n.catalog == nil || n.catalog.Tables[t.TableName] == nil {
		return nil
	}
	now := n.catalog.Tables[t.TableName]
	for _, r := range set.Rules {
		if r.On.Message != "" || r.On.Table != t.TableName {
			continue
		}
		for _, name := range r.LooksAt() {
			then, i := t.Column(name), now.Column(name)
			if then < 0 || i < 0 || len(now.Columns[i].Enum) == 0 {
				continue
			}
			at := slices.IndexFunc(all, func(l labelled) bool { return l.index == then })
			if at < 0 {
				at, all = len(all), append(all, labelled{Column: &now.Columns[i], index: then})
			}
			for _, op := range r.On.Ops {
				all[at].rules[op] = append(all[at].rules[op], r.Name)
			}
		}
	}
	return all
}

// strange says of a change that a value is no label of its type now; empty: it is.
func (b *binding) strange(l *labelled, c *cdc.Change) string {
	for i, tuple := range [...]cdc.Tuple{c.New, c.Old} {
		row, err := tuple.Datums(b.row[:0])
		if b.row = row; err != nil || l.index >= len(row) || row[l.index].State != value.Present {
			continue // what the tuple lacks, or cannot be read, the verdict tells
		}
		if text := string(row[l.index].Text); !slices.Contains(l.Enum, text) {
			return fmt.Sprintf("%s.%s was %q, which is no label of %s now: it has another name, or is gone", [...]string{"new", "old"}[i], l.Name, text, l.Type.Name)
		}
	}
	return ""
}
