package demo

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/examples/crm"
	"postman/internal/pgcluster/pgtest"
)

// TestActs does each of them many times: none may fail, whatever the others have done before.
func TestActs(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, crm.Schema, crm.Data)
	db := pgtest.Connect(t, url)
	done := make([]int, len(acts))
	for range 40 {
		for i, a := range acts {
			if err := perform(t.Context(), db, a, func(_ time.Time, what string) {
				done[i]++
				if strings.Contains(what, "  ") || strings.TrimSpace(what) != what || what == "" {
					t.Errorf("%q", what)
				}
			}); err != nil {
				t.Fatalf("%s\n%v", a.sql, err)
			}
		}
	}
	for i, n := range done {
		if n < 30 {
			t.Errorf("done %d times of 40: %s", n, acts[i].sql)
		}
	}
	for what, query := range map[string]string{
		"an appointment outside office hours": `select count(*) from schedules where id > 15
			and extract(hour from starts_at at time zone 'Asia/Seoul') not between 10 and 18`,
		"a VIP whom many look after": `select count(*) from (select from assignments join customers c on c.id = customer_id
			where grade = 'vip' group by customer_id having count(*) > 3) many`,
		"a price of nothing": `select count(*) from listings where price < 100000000 and deal = 'sale'`,
	} {
		if n := count(t, db, query); n > 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
	for what, query := range map[string]string{
		"moved by a customer": `select count(*) from schedules where updated_by is null and id <= 15 and starts_at > now()`,
		"moved by staff":      `select count(*) from schedules where updated_by is not null and status = 'booked'`,
		"cancelled":           `select count(*) from schedules where updated_by is not null and status = 'cancelled'`,
		"asked for a token":   `select count(*) from password_resets`,
	} {
		if n := count(t, db, query); n == 0 {
			t.Errorf("%s: never", what)
		}
	}
}

func count(t *testing.T, db *pgx.Conn, query string) (n int) {
	t.Helper()
	if err := db.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s\n%v", query, err)
	}
	return n
}

func TestPick(t *testing.T) {
	t.Parallel()
	drawn := map[string]int{}
	for range 4000 {
		drawn[pick([]act{{often: 1, sql: "seldom"}, {often: 3, sql: "often"}, {often: 0, sql: "never"}}).sql]++
	}
	if drawn["never"] != 0 || drawn["seldom"] < 800 || drawn["often"] < 2600 {
		t.Errorf("drawn: %v", drawn)
	}
}
