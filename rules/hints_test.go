package rules

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postman/cdc"
)

// follow is a mistake, and what its hint says to write in the place of a part of it.
type follow struct {
	when     string // with the mistake
	bad      string // the part; empty: all of it
	write    string // what the hint has for it
	timezone string
}

// followed are mistakes whose hints say what to write. Some lead to a second mistake, whose hint leads on.
var followed = []follow{
	{when: `new.price > 1,000,000`, bad: "1,000,000", write: "1000000"},
	{when: `new.price > 1,000,000.50`, bad: "1,000,000.50", write: "1000000.50"},
	{when: `new.price > 0,5`, bad: "0,5", write: "0.5"},
	{when: `new.price > 12,5`, bad: "12,5", write: "12.5"},
	{when: `new.price > 1,500 and new.vacant`, bad: "1,500", write: "1500"},
	{when: `new.price > "0,5"`, bad: `"0,5"`, write: "0.5"},
	{when: `new.price > "1,000,000"`, bad: `"1,000,000"`, write: "1000000"},
	{when: `new.price > 1M`, bad: "1M", write: "1000000"},
	{when: `new.price > 3억`, bad: "3억", write: "300000000"},
	{when: `new.created_by == 1 or 2`, write: "new.created_by in [1, 2]"},
	{when: `new.vacant and (new.created_by == 1 or 2 or 3)`, bad: "new.created_by == 1 or 2 or 3", write: "new.created_by in [1, 2, 3]"},
	{when: `new.status == "a" or "b"`, write: `new.status in ["a", "b"]`},
	{when: `new.status != "a" and "b"`, write: `new.status not in ["a", "b"]`},
	{when: `new.status != ("a" or "b")`, write: `new.status not in ["a", "b"]`},
	{when: `new.note contains "a" or "b"`, write: `(new.note contains "a" or new.note contains "b")`},
	{when: `not new.note == "x"`, write: `new.note != "x"`},
	{when: `not new.note contains "x"`, write: `new.note not contains "x"`},
	{when: `not new.kind in ["call", "meeting"]`, write: `new.kind not in ["call", "meeting"]`},
	{when: `!new.price > 5`, write: `not (new.price > 5)`},
	{when: `not lower(new.note) == "x"`, write: `lower(new.note) != "x"`},
	{when: `new.starts_at::date == current_date`, write: `new.starts_at > commit_time - duration("24h") and new.starts_at <= commit_time`},
	{when: `new.starts_at = now()`, write: `new.starts_at > commit_time - duration("24h") and new.starts_at <= commit_time`},
	{when: `new.starts_at < now()`, bad: "now()", write: "commit_time"},
	{when: `new.starts_at > current_date`, bad: "current_date", write: "commit_time"},
	{when: `new.starts_at::date = '2026-05-31'`, timezone: "Asia/Seoul", write: `new.starts_at >= date("2026-05-31") and new.starts_at < date("2026-06-01")`},
	{when: `new.local_at::date == '2026-05-31'`, write: `new.local_at >= date("2026-05-31") and new.local_at < date("2026-06-01")`},
	{when: `new.starts_at > commit_time + "2 days"`, bad: `"2 days"`, write: `duration("48h")`},
	{when: `new.starts_at > commit_time + "2 days"`, timezone: "Asia/Seoul", bad: `"2 days"`, write: `duration("2d")`},
	{when: `new.starts_at > commit_time + 2`, bad: "2", write: `duration("48h")`},
	{when: `new.starts_at > commit_time - 7`, timezone: "Asia/Seoul", bad: "7", write: `duration("7d")`},
	{when: `new.day + 5 > new.local_at`, bad: "5", write: `duration("5d")`},
	{when: `new.starts_at - commit_time > 7`, bad: "7", write: `duration("168h")`},
	{when: `new.starts_at - commit_time > "7 days"`, bad: `"7 days"`, write: `duration("168h")`},
	{when: `new.day - new.local_at > "7 days"`, bad: `"7 days"`, write: `duration("7d")`},
	{when: `new.starts_at > commit_time - interval '2 days'`, bad: "interval '2 days'", write: `duration("48h")`},
	{when: `new.starts_at - commit_time > interval '1 hour 30 minutes'`, bad: "interval '1 hour 30 minutes'", write: `duration("1h30m")`},
	{when: `new.starts_at - commit_time > '01:30'::interval`, bad: "'01:30'::interval", write: `duration("1h30m")`},
	{when: `new.tags @> '{vip}'`, write: `"vip" in new.tags`},
	{when: `new.tags @> '{vip, new}' and new.vacant`, bad: `new.tags @> '{vip, new}'`, write: `"vip" in new.tags and "new" in new.tags`},
	{when: `new.tags @> ARRAY['vip']`, write: `'vip' in new.tags`},
	{when: `'{vip}' <@ new.tags`, write: `"vip" in new.tags`},
	{when: `new.numbers @> '{5}'`, write: `5 in new.numbers`},
	{when: `'vip' = ANY(new.tags)`, write: `'vip' in new.tags`},
	{when: `new.status = any(array['a', 'b'])`, write: `new.status in ['a', 'b']`},
	{when: `new.note || "x" == "y"`, write: `new.note + "x" == "y"`},
	{when: `new.note || " " || new.status == "y"`, write: `new.note + " " + new.status == "y"`},
	{when: `new.starts_at > "2026-01-01 10:00"`, bad: `"2026-01-01 10:00"`, write: `date("2026-01-01T10:00:00+09:00")`},
	{when: `new.starts_at > "2026-01-01 10:00"`, timezone: "UTC", bad: `"2026-01-01 10:00"`, write: `date("2026-01-01 10:00")`},
	{when: `new.local_at > "2026-01-01 10:00"`, bad: `"2026-01-01 10:00"`, write: `date("2026-01-01 10:00")`},
	{when: `new.day > date '2026-01-01'`, bad: `date '2026-01-01'`, write: `date("2026-01-01")`},
	{when: `new.starts_at > '2026-01-01'::timestamptz`, bad: `'2026-01-01'::timestamptz`, write: `date("2026-01-01T00:00:00+09:00")`},
	{when: `startsWith(new.note, "K")`, write: `new.note startsWith "K"`},
	{when: `new.vacant and starts_with(new.note, "K")`, bad: `starts_with(new.note, "K")`, write: `new.note startsWith "K"`},
	{when: `contains(lower(new.note), "k")`, write: `lower(new.note) contains "k"`},
	{when: `new.note startswith "x"`, bad: "startswith", write: "startsWith"},
	{when: `new.note not endswith "x"`, bad: "endswith", write: "endsWith"},
	{when: `new.note.startsWith("x")`, write: `new.note startsWith "x"`},
	{when: `new.note like 'x%'`, write: `new.note startsWith "x"`},
	{when: `new.note not like '%x%'`, write: `not (new.note contains "x")`, bad: ""},
	{when: `new.note ilike '%X'`, write: `lower(new.note) endsWith "x"`},
	{when: `new.note like 'x_y%'`, write: `new.note matches "^x.y"`},
	{when: `new.note like 'abc'`, write: `new.note == "abc"`},
	{when: `new.note ~* '^k'`, write: `new.note matches "(?i)^k"`},
	{when: `new.note !~ '^k'`, write: `new.note not matches "^k"`},
	{when: `new.price between 1 and 10 and new.vacant`, bad: "new.price between 1 and 10", write: "new.price >= 1 and new.price <= 10"},
	{when: `new.price not between 1 and 10`, write: "(new.price < 1 or new.price > 10)"},
	{when: `new.price in 1..5`, write: "new.price >= 1 and new.price <= 5"},
	{when: `new.status in ('a', 'b')`, write: `new.status in ['a', 'b']`},
	{when: `new.id NOT IN (1, 2)`, bad: "NOT", write: "not"},
	{when: `new.id not in (1, 2)`, write: "new.id not in [1, 2]"},
	{when: `new.note is not null`, write: "new.note != nil"},
	{when: `new.data.a.b is null`, write: "new.data.a.b == nil"},
	{when: `new.vacant is true`, write: "new.vacant"},
	{when: `new.vacant is not true`, write: "not new.vacant"},
	{when: `new.note is distinct from old.note`, bad: "is distinct from", write: "!="},
	{when: `new.data->>'city' == "Seoul"`, bad: "new.data->>'city'", write: "new.data.city"},
	{when: `new.data->'a'->>'the city' == "Seoul"`, bad: "new.data->'a'->>'the city'", write: `new.data.a["the city"]`},
	{when: `new.data->'a'->0->>'b' == "x"`, bad: "new.data->'a'->0->>'b'", write: `new.data.a[0].b`},
	{when: `new.id === 5`, bad: "===", write: "=="},
	{when: `new.id !== 5`, bad: "!==", write: "!="},
	{when: `new.id = 5`, bad: "=", write: "=="},
	{when: `new.id <> 5`, bad: "<>", write: "!="},
	{when: `lenght(new.note) > 5`, write: "len(new.note)", bad: "lenght(new.note)"},
	{when: `length(new.note) > 5`, write: "len(new.note)", bad: "length(new.note)"},
	{when: `coalesce(new.price, 0) > 5`, write: "(new.price ?? 0)", bad: "coalesce(new.price, 0)"},
	{when: `new.price ?? 0 > 5`, write: "(new.price ?? 0)", bad: "new.price ?? 0"},
	{when: `len(new.note, 5) > 5`, write: "len(new.note)", bad: "len(new.note, 5)"},
	{when: `eq .new.status "won"`, write: `new.status == "won"`},
	{when: `new.status eq "won"`, write: `new.status == "won"`},
	{when: `.new.vacant`, write: "new.vacant"},
	{when: `new.id == @new.customer_id`, bad: "@new.customer_id", write: "new.customer_id"},
	{when: `new.price > $5`, bad: "$5", write: "5"},
	{when: `new."status" == "won"`, bad: `new."status"`, write: "new.status"},
	{when: `changed(status)`, write: "changed(new.status)"},
	{when: `changed(old.status)`, write: "changed(new.status)"},
	{when: `changed("status")`, write: "changed(new.status)"},
	{when: `new.note == ""`, bad: "", write: ""},
	{when: `new.tags == "vip"`, write: `"vip" in new.tags`},
	{when: `new.tags == ["vip"]`, write: `"vip" in new.tags`},
	{when: `new.tags contains "vip"`, write: `"vip" in new.tags`},
	{when: `new.status == ["a", "b"]`, write: `new.status in ["a", "b"]`},
	{when: `new.status != ["a", "b"]`, write: `new.status not in ["a", "b"]`},
	{when: `new.note in "villa"`, write: `new.note contains "villa"`},
	{when: `new.vacant == 1`, write: "new.vacant"},
	{when: `new.vacant == "false"`, write: "not new.vacant"},
	{when: `new.price > 5 and < 10`, bad: "< 10", write: "new.price < 10"},
	{when: `new.price >= old.price * 90%`, bad: "90%", write: "0.9"},
	{when: `any(new.tags) == "vip"`, write: `"vip" in new.tags`},
}

// TestFollowedHints holds that who does just what a hint says has a rule that passes.
func TestFollowedHints(t *testing.T) {
	t.Parallel()
	for _, tt := range followed {
		t.Run(tt.when+" "+tt.timezone, func(t *testing.T) {
			t.Parallel()
			first := mistakesOf(t, tt.when, tt.timezone)
			if len(first) == 0 {
				if tt.write != "" {
					t.Fatal("the mistake was not noticed")
				}
				return
			}
			bad := tt.bad
			if bad == "" {
				bad = tt.when
			}
			hints := make([]string, len(first))
			for i, e := range first {
				hints[i] = e.Hint
			}
			if !slices.ContainsFunc(hints, func(h string) bool { return says(h, tt.write) }) {
				t.Fatalf("%q, want one that says to write %s", hints, tt.write)
			}
			when := strings.Replace(tt.when, bad, tt.write, 1)
			if left := mistakesOf(t, when, tt.timezone); len(left) > 0 && len(left) >= len(first) {
				t.Errorf("%s is refused: %s", when, left)
			}
		})
	}
}

// says says whether a hint has a text, and not as a part of a longer name or number.
func says(hint, text string) bool {
	_, after, found := strings.Cut(hint, text)
	return found && (after == "" || strings.ContainsAny(after[:1], " ,;:)"))
}

// mistakesOf are all of a condition's, in a rule on the fixture.
func mistakesOf(t *testing.T, when, timezone string) Errors {
	t.Helper()
	s, err := readText(when, timezone)
	if err == nil {
		_, err = Compile(s, catalog())
	}
	found, _ := errors.AsType[Errors](err)
	return found
}

func readText(when, timezone string) (*Source, error) {
	var zone string
	if timezone != "" {
		zone = "\n    timezone: " + timezone
	}
	s := new(Source)
	errs := s.add("rules.yaml", fmt.Appendf(nil, "rules:\n  - name: a\n    about: x\n    on: {table: schedules, ops: [insert, update]}%s\n    when: |\n      %s\n    to: {address: a@example.com}\n    template: x\n",
		zone, strings.ReplaceAll(when, "\n", "\n      ")))
	errs = append(errs, s.unite()...)
	return s, errs.orNil()
}

// written are the expressions that a hint says to write.
var written = regexp.MustCompile(`write ((?:new|old|message|not|commit_time|lower|upper|len|abs|date|duration|any|changed|trim)\b.*?|\d.*?|[("'].+?)(?:, or |; |, with | and give | for | where |: that is |$)`)

// TestHintsAreExpressions holds of all mistakes that the goldens show: the expressions that hints say to write are sound ones, of the
// columns that there are.
func TestHintsAreExpressions(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/mistakes/expr-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, path := range paths {
		s, err := Read(path)
		if s == nil {
			t.Fatal(path, err)
		}
		_, compileErr := Compile(s, catalog())
		found, _ := errors.AsType[Errors](errors.Join(err, compileErr))
		if both, ok := errors.AsType[Errors](compileErr); ok && err != nil {
			found = append(found, both...)
		}
		for _, e := range found {
			i := slices.IndexFunc(s.Rules, func(r *Rule) bool { return r.Name == e.Rule })
			if i < 0 || len(s.Rules[i].On.Ops) == 0 {
				continue
			}
			env := env{table: catalog().Tables[s.Rules[i].On.Table], ops: s.Rules[i].On.Ops, zone: time.UTC}
			for _, m := range written.FindAllStringSubmatch(e.Hint, -1) {
				tried++
				_, problems := checkExpr(m[1], env)
				if len(problems) > 0 && problems[0].id == "PM105" {
					continue // the column is misspelt in the rule as well, which is told
				}
				if len(problems) > 0 {
					t.Errorf("%s: %s\n%s is refused: %s", e.Place, e.Hint, m[1], problems[0].message)
				}
			}
		}
	}
	if tried < 50 {
		t.Errorf("only %d expressions were tried", tried)
	}
}

// TestPartitionedIsNotOrdered holds that nothing tells to give a partitioned table a replica identity that is refused then.
func TestPartitionedIsNotOrdered(t *testing.T) {
	t.Parallel()
	for _, ops := range [][]cdc.Op{{cdc.Update}, {cdc.Insert, cdc.Update}, {cdc.Delete}} {
		d := &Draft{Name: "a", Template: "a", Table: months(), Ops: ops, To: "{address: a@example.com}"}
		if text := d.Rule(2); strings.Contains(text, "ALTER TABLE") || !strings.Contains(text, "whatever its REPLICA IDENTITY") {
			t.Error(text)
		}
	}
	for _, when := range []string{`old.kind != "x"`, `changed(new.kind)`, `new.kind == "x"`, `new.data.a == 1`} {
		s := parse(t, "rules:\n  - name: a\n    on: {table: parts, ops: [update]}\n    when: |\n      "+when+"\n    to: {address: a@example.com}\n    template: x\n")
		set, err := Compile(s, catalog())
		found, _ := errors.AsType[Errors](err)
		if err == nil {
			found = set.Lint(catalog())
		}
		for _, e := range found {
			if strings.Contains(e.Hint, "ALTER TABLE") {
				t.Error(e)
			}
		}
	}
}
