package pgtest

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Shared(m).Run()) }

func TestDatabase(t *testing.T) {
	t.Parallel()
	var first, second string
	t.Run("use", func(t *testing.T) {
		first, second = Database(t), Database(t)
		if Name(first) == Name(second) {
			t.Errorf("two databases have one name, %s", Name(first))
		}
		for _, url := range []string{first, second} {
			Exec(t, url, "create table t ()", "select pg_create_logical_replication_slot('"+Name(url)+"', 'pgoutput')")
		}
		Connect(t, first) // stays open: dropping copes with it
	})
	conn := Connect(t, Cluster(t).URL("postgres"))
	for _, sql := range []string{
		"select count(*) from pg_database where datname = any($1)",
		"select count(*) from pg_replication_slots where slot_name = any($1)",
	} {
		var left int
		if err := conn.QueryRow(t.Context(), sql, []string{Name(first), Name(second)}).Scan(&left); err != nil {
			t.Fatal(err)
		}
		if left > 0 {
			t.Errorf("%s: %d are left", sql, left)
		}
	}
}
