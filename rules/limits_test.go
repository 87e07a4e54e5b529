package rules

import (
	"strings"
	"testing"
	"time"

	"postman/cdc"
)

// TestLimits holds what makes a rule end, soon and always with the same result: each line is refused, for the reason that its
// message begins with.
func TestLimits(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		`new.note == "` + strings.Repeat("x", 8<<10) + `"`: "the expression is longer than 8 KiB",
		`let x = 1; x == 1`:                      "let is not a part of rules",
		`new[op] == nil`:                         "which column is meant must be written out",
		`new.data[new.note] == nil`:              "which key is meant must be written out",
		`$env["new"] == nil`:                     "a $ has no meaning in an expression",
		`$env.op == "insert"`:                    "a $ has no meaning in an expression",
		`len(1..1000000) > 5`:                    "a range stands only behind in",
		`any(1..1000000, # == 5)`:                "a range stands only behind in",
		`new.id in [1..5]`:                       "a range stands only behind in",
		`new.note matches new.status`:            "a regular expression must be written out",
		`new.note matches "a" + "b"`:             "a regular expression must be written out",
		`any(new.tags, any(new.tags, # == "x"))`: "any stands inside of another predicate",
		`any(new.tags, count(new.tags) > 1)`:     "count stands inside of another predicate",
		`map(new.tags, #) == nil`:                "the function map is not a part of rules",
		`repeat("x", 1000000) == "x"`:            "the function repeat is not a part of rules",
		`now() > commit_time`:                    "now() would not be the same in a replay",
		`new.id ** 1000000 > 1`:                  "** is not a part of rules",
		`new.note | lower() == "x"`:              "the pipe is not a part of rules",
		`{"a": 1}.a == 1`:                        "this is not a part of rules",
		strings.Repeat("(1 < ", 40) + "1" + strings.Repeat(" < 3 ? 1 : 2)", 40) + " == 1": "the chains of comparisons stand inside of one another too deep",
	} {
		_, problems := checkExpr(source, env{table: schedules(), ops: everyOp})
		if len(problems) == 0 || !strings.HasPrefix(problems[0].message, want) {
			t.Errorf("%.60s: %+v, want %q", source, problems, want)
		}
	}
}

// TestFolded holds that what depends on constants only is computed when the rule is read.
func TestFolded(t *testing.T) {
	t.Parallel()
	for _, source := range []string{
		`duration("2h") > duration("1h")`, `date("2026-01-31") + duration("1d") == date("2026-02-01")`, `len("한글") == 2`, `-(1 + 2) < 0`,
		`"ab" startsWith "a"`, `lower("A") == "a"`, `"ab" matches "^a"`, `abs(-2) * 3 == 6`, `1 in 1..5`, `"a" in ["a", "b"]`, `(nil ?? 1) == 1`, `table == "schedules"`,
	} {
		tree, problems := checkExpr(source, env{table: schedules(), ops: everyOp, zone: time.UTC})
		if len(problems) > 0 {
			t.Errorf("%s: %+v", source, problems)
			continue
		}
		if k, ok := specialize(tree.root, cdc.Update).(*constant); !ok || k.value != true {
			t.Errorf("%s is left as %+v", source, specialize(tree.root, cdc.Update))
		}
	}
}

// TestDeep has expressions as deep as their length allows: neither the front end nor the engine may take long over one, nor
// overflow a stack, whether it is accepted or not.
func TestDeep(t *testing.T) {
	t.Parallel()
	around := func(before, middle, after string) string {
		n := (maxExpr - len(middle) - len(" == 1")) / (len(before) + len(after))
		return strings.Repeat(before, n) + middle + strings.Repeat(after, n)
	}
	table := schedules()
	c := &cdc.Change{Op: cdc.Update, Table: table, New: row{"id": "1", "note": "x", "vacant": "t", "data": strings.Repeat("[", 9000) + strings.Repeat("]", 9000)}.tuple(table)}
	for _, source := range []string{
		around("(", "new.vacant", ")"), around("!", "new.vacant", ""), around("not ", "new.vacant", ""), around("-", "new.id", "") + " == 1",
		around("new.vacant ? 1 : ", "2", "") + " == 1", around("(new.vacant ? ", "2", " : 3)") + " == 1", around("new.vacant and ", "true", ""),
		around("(", "new.vacant", " or new.vacant)"), around("(new.id ?? ", "1", ")") + " == 1", around("", "new.data", ".a") + " == 1",
		around("", "new.data", "[0]") + " == 1", around("", "1", " < new.id"), around("(", "true", " in [true])"), around("lower(", "new.note", ")") + ` == "x"`,
		around("", "new.note", " + new.note") + " == 1", around("(", "new.note", " * 2)") + " == 1", around("(", "new.nope", " + 1)") + " == 1",
		around("[", "", "]"), around("{", "", "}"), around("{a:", "1", "}"), around("any(new.tags, ", "true", ")"), around("", "new", ".new") + " == 1",
		around("(1 < ", "2", " < 3)"), around("(1 < ", "2", " < 3 ? 1 : 2)") + " == 1", around("", "new.data", "?.a") + " == 1",
	} {
		if len(source) > maxExpr {
			t.Fatalf("%.40s is too long", source)
		}
		checked, problems := checkExpr(source, env{table: table, ops: everyOp})
		if len(problems) > 0 || !checked.typ.condition() {
			continue
		}
		r := &Rule{On: On{Ops: everyOp}}
		if got := planOf(table, []*Rule{r}, []node{checked.root}).byIndex(c); differing(naively([]*Rule{r}, []node{checked.root}, c), got) != "" {
			t.Errorf("%.40s: %+v", source, got)
		}
	}
}

// TestRefusedAtOnce holds that refusing a long expression takes work in proportion to its length, however many mistakes it has and however
// much each of them is about, and that the first of them are told.
func TestRefusedAtOnce(t *testing.T) { // not parallel: it counts allocations
	e := env{table: schedules(), ops: everyOp}
	for name, link := range map[string]string{
		"comparisons": "1 == ", "lists": `new.id in ["a"] == `, "orders": `new.id in [1, 2] < `, "texts": "new.id contains ", "choices": "1 ? 1 : ",
		"sums": `new.note in "a" + `, "or": `new.id in ["a"] || `, "lists in lists": `new.note in ["a"] in `,
	} {
		work := func(size int) float64 {
			source := strings.Repeat(link, (size-1)/len(link)) + "1"
			_, problems := checkExpr(source, e)
			if len(problems) != mostProblems || !strings.Contains(problems[mostProblems-1].hint, "more mistakes") {
				t.Fatalf("%s: %d mistakes are told: %+v", name, len(problems), problems)
			}
			return testing.AllocsPerRun(1, func() { _, _ = checkExpr(source, e) })
		}
		if half, whole := work(maxExpr/2), work(maxExpr); whole > 2.5*half {
			t.Errorf("%s: %.0f allocations, and %.0f for half the length", name, whole, half)
		}
	}
}
