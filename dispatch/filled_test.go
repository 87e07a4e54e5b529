package dispatch

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/rules"
	"postman/value"
)

// The queries that people are shown are those that Postgres is asked, but for what is sensitive.
func TestQueries(t *testing.T) {
	t.Parallel()
	r, err := rules.Revive([]byte(`
sensitive: [message.reset.token]
rules:
  - name: reset
    on: {message: reset}
    to:
      query: |
        -- costs $1, for @message.name
        select email from staff where name = @message.name and n = @message.n and ok = @message.ok and name <> '@message.name $2'
           and o = @message.name and data @> @message.data and gone is not distinct from @message.gone and t = @message.token
    load:
      who: select * from staff where email = @to.email
    template: reset
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	message, err := value.DecodeJSON([]byte(`{"name": "O'Neil", "n": 1.50, "ok": true, "data": {"a": [1, "k@example.com"]}, "token": "s3cret"}`))
	if err != nil {
		t.Fatal(err)
	}
	f := &rules.Facts{Op: "message", Prefix: "postman.reset", Message: message}
	text := value.Type{OID: pgtype.TextOID, Base: pgtype.TextOID}
	to := value.Row{{Column: value.Column{Name: "email", Type: text}, Datum: value.Of("it's@example.com")}}
	hide := func(s string) string {
		if s == `{"a":[1,"k@example.com"]}` {
			return "masked"
		}
		return s
	}
	query := `-- costs $1, for @message.name
select email from staff where name = 'O''Neil' and n = 1.50 and ok = true and name <> '@message.name $2'
   and o = 'O''Neil' and data @> 'masked'::jsonb and gone is not distinct from NULL and t = <@message.token: sensitive>`
	for name, c := range map[string]struct {
		to   value.Row
		load string
	}{
		"nobody in mind":  {nil, "select * from staff where email = @to.email"},
		"a sensitive one": {value.Row{{Column: to[0].Column, Datum: value.Datum{State: value.Blanked}}}, "select * from staff where email = <@to.email: sensitive>"},
		"a recipient":     {to, "select * from staff where email = 'it''s@example.com'"},
	} {
		want := []Asked{{"to", 8, query}, {"load who", 12, c.load}}
		got := Queries(r, f, c.to, hide)
		for i := range got {
			got[i].Line = want[i].Line // lines count in the stored rule's text, which is not this one
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
