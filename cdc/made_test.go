package cdc

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/internal/pgcluster/pgtest"
	"postman/value"
)

// TestMakeChange makes changes, and has Postgres stream the same ones.
func TestMakeChange(t *testing.T) {
	t.Parallel()
	row := func(texts ...string) []value.Datum {
		r := make([]value.Datum, len(texts))
		for i, text := range texts {
			if text != "NULL" {
				r[i] = value.Of(text)
			}
		}
		return r
	}
	for identity, alter := range map[string]string{
		"default": "alter table t replica identity default",
		"full":    "alter table t replica identity full",
		"index":   "alter table t replica identity using index t_a_b_key",
	} {
		t.Run(identity, func(t *testing.T) {
			t.Parallel()
			url, r, _ := watch(t, all("t"), "create table t (id int primary key, a int not null, b text not null, c text, unique (a, b))", alter)
			type tuples struct {
				Op       Op
				New, Old string
				OldKey   bool
			}
			var table *Table
			var got []tuples
			r.onChange = func(c *Change) error {
				table = c.Table
				got = append(got, tuples{c.Op, string(c.New), string(c.Old), c.OldKey})
				return nil
			}
			steps := []struct {
				sql       string
				op        Op
				now, then []value.Datum
			}{
				{"insert into t values (1, 1, 'x', null)", Insert, row("1", "1", "x", "NULL"), nil},
				{"update t set c = 'new'", Update, row("1", "1", "x", "new"), row("1", "1", "x", "NULL")},
				{"update t set id = 2", Update, row("2", "1", "x", "new"), row("1", "1", "x", "new")},
				{"update t set b = 'y'", Update, row("2", "1", "y", "new"), row("2", "1", "x", "new")},
				{"update t set b = 'y'", Update, row("2", "1", "y", "new"), row("2", "1", "y", "new")},
				{"update t set c = null", Update, row("2", "1", "y", "NULL"), row("2", "1", "y", "new")},
				{"delete from t", Delete, nil, row("2", "1", "y", "NULL")},
				{"truncate t", Truncate, nil, nil},
			}
			for _, s := range steps {
				pgtest.Exec(t, url, s.sql)
			}
			r.transactions(len(steps))
			var want []tuples
			for _, s := range steps {
				c := MakeChange(s.op, table, s.now, s.then)
				want = append(want, tuples{c.Op, string(c.New), string(c.Old), c.OldKey})
			}
			if diff := cmp.Diff(got, want); diff != "" {
				t.Errorf("streamed (-) and made (+):\n%s", diff)
			}
		})
	}
}
