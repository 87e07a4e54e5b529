package chaos

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// edition is what the file of the rules says. Its number can be read off how many rules there are: the daemon logs that with the position
// from which on they decide.
type edition struct {
	number int
	class  int    // of visits that are told of
	column string // of tickets that says yes, as the table calls it
	reads  string // and as the rule does
	table  string // on which the rule on parcels is
	words  [3]int // in which booked, imported and ticketed are said
}

var firstEdition = edition{column: "urgent", reads: "urgent", table: "parcels"}

// other is the other of the two names that a column or a table has by turns.
func other(name string) string {
	return map[string]string{"urgent": "hot", "hot": "urgent", "parcels": "freight", "freight": "parcels"}[name]
}

const (
	classes  = 3
	editions = 6 // that can be told apart by how many rules they have
	filler   = 3 // more rules in each: two of them may be broken, and do not count then
)

// next says the same in other words, but for the class.
func (e edition) next(dice *rand.Rand) edition {
	e.number++
	e.class = (e.class + 1 + dice.IntN(classes-1)) % classes
	for i := range e.words {
		e.words[i] = dice.IntN(3)
	}
	return e
}

// What the rules may say to mean the same.
var (
	booked   = [3]string{`new.kind == "meeting"`, `"meeting" == new.kind`, `not (new.kind != "meeting")`}
	imported = [3]string{`new.wanted`, `new.wanted and new.change > 0`, `not (not new.wanted)`}
	ticketed = [3]string{
		`new.COLUMN == "yes" and new.level >= 3 and new.status == "open"`,
		`new.status == "open" and new.COLUMN == "yes" and not (new.level < 3)`,
		`new.COLUMN in ["yes"] and new.level > 2 and new.status in ["open"]`,
	}
)

const own = 8 // rules but for the fillers

func (e edition) rules() int { return own + filler*(e.number%editions) }

// marks is the edition's number, modulo editions, of rules of which so many decide.
func marks(deciding int) int { return (deciding - own + filler - 1) / filler }

func (e edition) text() string {
	var b strings.Builder
	b.WriteString("rules:\n")
	rule := func(name, on, when, to, template string) {
		fmt.Fprintf(&b, "  - name: %s\n    about: Something happened.\n    on: %s\n", name, on)
		if when != "" {
			fmt.Fprintf(&b, "    when: %s\n", when)
		}
		if template == "booked" {
			b.WriteString("    load:\n      customer: select name, phone from customers where id = @new.customer_id\n")
		}
		fmt.Fprintf(&b, "    to: %s\n    template: %s\n    hold_over: {transaction: 1000000, minute: 1000000, row: 1000000}\n", to, template)
	}
	const staff = `{query: "select email, name from staff where id = @new.staff_id"}`
	for i := range filler * (e.number % editions) {
		rule(fmt.Sprintf("filler-%d", i), "{message: nothing}", "", "{address: nobody@example.com}", "pinged")
	}
	quoted := func(when string) string { return "|\n      " + strings.ReplaceAll(when, "COLUMN", e.reads) }
	rule("booked", "{table: schedules, ops: [insert, update]}", quoted(booked[e.words[0]]), staff, "booked")
	rule("imported", "{table: imports, ops: [insert]}", quoted(imported[e.words[1]]), staff, "told")
	rule("ticketed", "{table: tickets, ops: [insert]}", quoted(ticketed[e.words[2]]), staff, "told")
	rule("visited", "{table: visits, ops: [insert]}", quoted(fmt.Sprintf("new.class == %d", e.class)), staff, "told")
	rule("shipped", "{table: "+e.table+", ops: [insert]}", "", staff, "told")
	rule("removed", "{table: bookings, ops: [delete]}", "", strings.ReplaceAll(staff, "@new", "@old"), "removed")
	rule("emptied", "{table: wipes, ops: [truncate]}", "", "{address: office@example.com}", "emptied")
	rule("pinged", "{message: ping}", "", "message.email", "pinged")
	return b.String()
}

var templates = map[string]string{
	"booked": `{{define "subject"}}change {{.new.change}}{{end}}
{{define "body"}}<p>Dear {{.to.name}},</p><p>{{.customer.name}} ({{.customer.phone}}): {{.new.note}}</p>{{end}}
`,
	"told": `{{define "subject"}}change {{.new.change}}{{end}}
{{define "body"}}<p>Dear {{.to.name}}, something happened.</p>{{end}}
`,
	"removed": `{{define "subject"}}change {{.old.change}}{{end}}
{{define "body"}}<p>Dear {{.to.name}}, something happened.</p>{{end}}
`,
	"emptied": `{{define "subject"}}emptied{{end}}
{{define "body"}}<p>The table is empty.</p>{{end}}
`,
	"pinged": `{{define "subject"}}change {{.message.change}}{{end}}
{{define "body"}}<p>Here we are.</p>{{end}}
`,
}
