package rules

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"postman/cdc"
)

// TestReads holds of which sensitive columns a rule's queries are taken to read, through the stored rule as well.
func TestReads(t *testing.T) {
	t.Parallel()
	of := func(table, column string) TableColumn {
		return TableColumn{cdc.TableName{Schema: "public", Name: table}, column}
	}
	phone, token := of("customers", "phone"), of("vault", "token")
	for query, want := range map[string][]TableColumn{
		"select email, phone from customers":                               {phone},
		"select email, c.PHONE from Customers c":                           {phone},
		`select email, "phone" from public."customers"`:                    {phone},
		"select email, lower(c.phone)::int as p from customers c":          {phone},
		"select * from customers":                                          {phone},
		"select email, v.* from customers c join vault v on v.id = c.id":   {phone, token},
		"select email, token from customers join vault v using (id)":       {token},
		"select email from customers":                                      nil,
		"select email, phone from staff":                                   nil,
		"select email, phone_number from customers":                        nil,
		"select email from staff where id = @new.id and note = 'vault xx'": nil,
	} {
		for _, place := range []string{"to: {query: %}", "to: {address: a@example.com}, cc: {query: %}", "to: {address: a@example.com}, load: {x: %}"} {
			rule := strings.ReplaceAll("rules: [{name: a, on: {table: schedules, ops: [insert]}, template: x, "+place+"}]", "%", "'"+strings.ReplaceAll(query, "'", "''")+"'")
			r := parse(t, "sensitive: [customers.phone, vault.token, message.m.email]\n"+strings.Replace(rule, "rules: [", "rules: [{name: m, on: {message: m}, to: message.email, template: x}, ", 1)).Rules[1]
			if diff := cmp.Diff(want, r.Reads); diff != "" {
				t.Errorf("%s, in %s: %s", query, place, diff)
			}
			stored, err := Revive(r.Source(), schedules())
			if err != nil || !slices.Equal(stored.Reads, r.Reads) {
				t.Errorf("%s: stored, it reads %v; %v", query, stored.Reads, err)
			}
			if plain := parse(t, rule).Rules[0]; (string(plain.Source()) == string(r.Source())) != (want == nil) {
				t.Errorf("%s: the version with what is sensitive is\n%s\nand without\n%s", query, r.Source(), plain.Source())
			}
		}
	}
}
