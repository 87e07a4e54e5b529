package rules

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
)

// TestRealCatalog checks rules against tables as a real database describes them.
func TestRealCatalog(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `
		create type state as enum ('open', 'won');
		create domain euros as numeric(10, 2);
		create domain word as varchar(10);
		create table deals (id bigserial primary key, state state, states state[], price euros, title word, code char(5), at timestamptz, span interval,
		                    "Buyer Id" int, twice int generated always as ("Buyer Id" * 2) stored);
		alter table deals replica identity full;
		create table clicks (url text);
		create view overview as select * from deals;`)
	if err != nil {
		t.Fatal(err)
	}
	table := func(name string) cdc.TableName { return cdc.TableName{Schema: "public", Name: name} }
	catalog, err := cdc.LoadCatalog(t.Context(), conn, []cdc.TableName{table("deals"), table("clicks"), table("overview")})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ table, ops, when, want string }{
		{"deals", "insert, update", `new.state == "won" and old.state != "won" and new.price > 0.5 and new.title startsWith "a" and new.code == "x"`, ""},
		{"deals", "update", `changed(new.price) and new["Buyer Id"] in 1..5 and any(new.states, # == "open") and new.span != nil`, ""},
		{"deals", "insert", `new.state == "lost"`, `"lost" is no label of state`},
		{"deals", "insert", `new.state > "open"`, "new.state is state, whose order postman does not know"},
		{"deals", "insert", `new.price == "5"`, `new.price is euros and "5" is text: == compares like with like`},
		{"deals", "insert", `new.at > "2026-01-01"`, `new.at is timestamp with time zone and "2026-01-01" is text: > compares like with like`},
		{"deals", "insert", `new.twice == 2`, "the table deals has no column twice"}, // the stream does not carry it
		{"clicks", "insert", `new.url contains "x"`, ""},
		{"clicks", "delete", `old.url contains "x"`, "updates, deletes and truncates of clicks cannot be watched: the application's own would fail"},
		{"overview", "insert", `new.id == 1`, "overview cannot be watched"},
		{"nothing", "insert", `new.id == 1`, "the database has no table nothing"},
	}
	for _, tt := range tests {
		t.Run(tt.when, func(t *testing.T) {
			t.Parallel()
			s := parse(t, "rules:\n  - name: a\n    on: {table: "+tt.table+", ops: ["+tt.ops+"]}\n    when: |\n      "+tt.when+"\n    to: {address: a@example.com}\n    template: x\n")
			set, err := Compile(s, catalog)
			errs, _ := err.(Errors) //nolint:errorlint // Compile documents the type
			if tt.want == "" && (err != nil || len(set.Rules) != 1) || tt.want != "" && (len(errs) != 1 || errs[0].Message != tt.want || len(set.Rules) != 0) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
