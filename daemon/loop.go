package daemon

import (
	"hash/maphash"
	"time"

	"postman/cdc"
	"postman/value"
)

// rowSpan is the time in which so many matches for one row are a loop.
const rowSpan = 10 * time.Minute

// mostRows bounds the rows that are remembered: of a generation, of which there are two.
const mostRows = 1 << 16

// rowLog remembers when rules matched which rows. Its memory is bounded: it keeps two generations, and when the young one is full forgets the old
// one, as a segmented cache does. So a row that matched again lately is always known, which one that loops did; a sketch that counts (count-min)
// would need less memory, and hold the mails of rows that it takes for others.
//
// It is in memory alone: after a restart a loop has its first few mails again.
type rowLog struct {
	young, old map[rowKey]sighting
	most       int
}

// rowKey is a rule and the hash of a row's primary key.
type rowKey struct {
	rule uint32
	row  uint64
}

// sighting is when a row matched: the last time, and those before it that still matter, oldest first. Most rows match once.
type sighting struct {
	last    time.Time
	earlier []time.Time
}

func newRowLog() rowLog {
	return rowLog{young: make(map[rowKey]sighting), most: mostRows}
}

// again notes that a row matched at a time, and says whether that is more than most times within rowSpan.
func (l *rowLog) again(k rowKey, at time.Time, most int) bool {
	s, known := l.young[k]
	if !known {
		s = l.old[k]
	}
	if !s.last.IsZero() {
		s.earlier = append(s.earlier, s.last)
	}
	if n := len(s.earlier) - most; n > 0 {
		s.earlier = append(s.earlier[:0], s.earlier[n:]...)
	}
	s.last = at
	if !known && len(l.young) >= l.most {
		l.young, l.old = make(map[rowKey]sighting), l.young
	}
	l.young[k] = s
	return len(s.earlier) >= most && at.Sub(s.earlier[len(s.earlier)-most]) < rowSpan
}

// rowHash names rows by their primary keys, as long as the process lives.
type rowHash struct {
	seed maphash.Seed
	keys map[*cdc.Table][]int // columns of the primary keys; none: the table has none, or it is not known
	row  []value.Datum
}

func newRowHash() *rowHash {
	return &rowHash{seed: maphash.MakeSeed(), keys: make(map[*cdc.Table][]int)}
}

// of is the name of a change's row; 0: it has none. The catalog knows the primary keys, of which the stream says nothing.
func (h *rowHash) of(c *cdc.Change, catalog *cdc.Catalog) uint64 {
	if c.Table == nil || c.Err != nil {
		return 0
	}
	key, known := h.keys[c.Table]
	if !known {
		key = primaryKey(c.Table, catalog)
		h.keys[c.Table] = key
	}
	tuple := c.New
	if c.Op == cdc.Delete {
		tuple = c.Old
	}
	var err error
	if h.row, err = tuple.Datums(h.row[:0]); err != nil || len(key) == 0 {
		return 0
	}
	var sum maphash.Hash
	sum.SetSeed(h.seed)
	for _, i := range key {
		if i >= len(h.row) || h.row[i].State != value.Present {
			return 0
		}
		maphash.WriteComparable(&sum, len(h.row[i].Text)) // so that ("a", "bc") is not ("ab", "c")
		sum.Write(h.row[i].Text)
	}
	return max(sum.Sum64(), 1)
}

// primaryKey are the columns of a table's primary key, by their places in it.
func primaryKey(t *cdc.Table, catalog *cdc.Catalog) (key []int) {
	if catalog == nil || catalog.Tables[t.TableName] == nil {
		return nil
	}
	known := catalog.Tables[t.TableName]
	for i := range known.Columns {
		if !known.Columns[i].PK {
			continue
		}
		at := t.Column(known.Columns[i].Name)
		if at < 0 {
			return nil
		}
		key = append(key, at)
	}
	return key
}
