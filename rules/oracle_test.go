package rules

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/types"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Shared(m).Run()) }

// grammar makes random expressions that postman and expr's own machine must agree on, as long as no value is NULL. It
// leaves out what they mean to differ in: division that floats round, and numbers that int64 does not hold.
type grammar struct {
	*rapid.T
	depth int
}

func (g *grammar) pick(words ...string) string { return rapid.SampledFrom(words).Draw(g.T, "word") }

// part makes one of the alternatives; deep in an expression one of the first few, which are leaves.
func (g *grammar) part(leaves int, alternatives ...func() string) string {
	if g.depth > 3 {
		alternatives = alternatives[:leaves]
	}
	g.depth++
	defer func() { g.depth-- }()
	return rapid.SampledFrom(alternatives).Draw(g.T, "alternative")()
}

func (g *grammar) condition() string {
	return g.part(3,
		func() string { return g.pick("new.vacant", "old.vacant", "true", "false") },
		func() string { return "(" + g.pick("new", "old") + `.status == "a")` },
		func() string { return `(op == "update")` },
		func() string {
			return "(" + g.condition() + g.pick(" and ", " && ", " or ", " || ") + g.condition() + ")"
		},
		func() string { return g.pick("not (", "!(") + g.condition() + ")" },
		func() string { return "(" + g.condition() + g.pick(" == ", " != ") + g.condition() + ")" },
		func() string {
			return "(" + g.number() + g.pick(" == ", " != ", " < ", " <= ", " > ", " >= ") + g.number() + ")"
		},
		func() string {
			return "(" + g.text() + g.pick(" == ", " != ", " < ", " <= ", " > ", " >= ", " contains ", " startsWith ", " endsWith ") + g.text() + ")"
		},
		func() string { return "(" + g.text() + " matches " + g.pick(`"^a"`, `"b$"`, `"[ab]+"`, `"."`) + ")" },
		func() string {
			return "(" + g.text() + g.pick(" in ", " not in ") + g.pick(`["a", "b"]`, `[new.status, "ab"]`, "new.tags") + ")"
		},
		func() string {
			return "(" + g.whole() + g.pick(" in ", " not in ") + g.pick("[1, 2, 3]", "new.numbers", "-1..2") + ")"
		},
		func() string { return "(" + g.whole() + " < " + g.whole() + " <= " + g.whole() + ")" },
		func() string { return "(" + g.condition() + " ? " + g.condition() + " : " + g.condition() + ")" },
		func() string {
			return g.pick("any", "all", "none", "one") + "(" + g.pick("new.tags", `["a", new.status]`) + ", # " + g.pick("== ", "!= ", "startsWith ") + g.pick(`"a"`, `"b"`, "old.status") + ")"
		},
		func() string {
			return g.pick("any", "all") + "(new.numbers, # " + g.pick("> ", "== ") + g.pick("1", "new.id") + ")"
		},
	)
}

func (g *grammar) number() string {
	return g.part(2,
		func() string { return g.pick("new.price", "old.price", "0.5", "2.25", "-1.5") },
		g.whole,
		func() string { return "(" + g.number() + g.pick(" + ", " - ", " * ") + g.number() + ")" },
		func() string { return "(" + g.number() + " / " + g.pick("2", "4", "0.5") + ")" },
		func() string { return "abs(" + g.number() + ")" },
		// expr's machine takes the type of the first branch for that of both, and breaks off where the second is a float
		func() string { return "(" + g.condition() + " ? 1.0 * " + g.number() + " : 1.0 * " + g.number() + ")" },
	)
}

func (g *grammar) whole() string {
	return g.part(1,
		func() string { return g.pick("new.id", "old.id", "0", "1", "2", "-3") },
		func() string { return "(" + g.whole() + g.pick(" + ", " - ", " * ") + g.whole() + ")" },
		func() string { return "(" + g.whole() + " % " + g.pick("2", "3") + ")" },
		func() string { return "len(" + g.pick("new.tags", "new.numbers", "new.status") + ")" },
		func() string { return "(" + g.condition() + " ? " + g.whole() + " : " + g.whole() + ")" },
		func() string { return "count(new.numbers, # > " + g.pick("0", "1") + ")" },
		func() string { return "(new.id ?? 5)" },
	)
}

func (g *grammar) text() string {
	return g.part(1,
		func() string { return g.pick("new.status", "old.status", `"a"`, `"Ab"`, `"bä"`, `""`) },
		func() string { return "(" + g.text() + " + " + g.text() + ")" },
		func() string { return g.pick("lower(", "upper(", "trim(") + g.text() + ")" },
		func() string { return "(" + g.condition() + " ? " + g.text() + " : " + g.text() + ")" },
		func() string { return "(new.status ?? " + g.text() + ")" },
	)
}

// TestOracle compares the evaluator with expr's own machine on random expressions and rows without NULLs.
func TestOracle(t *testing.T) {
	t.Parallel()
	table := schedules()
	column := func(name string) types.Type {
		t := columnType(&table.Columns[table.Column(name)])
		return t.exprType(false)
	}
	names := types.Map{}
	for _, name := range []string{"id", "status", "price", "vacant", "tags", "numbers"} {
		names[name] = column(name)
	}
	environment := types.Map{"op": types.String, "new": names, "old": names}
	rapid.Check(t, func(t *rapid.T) {
		g := &grammar{T: t}
		source := g.condition()
		now, nowMap := g.row()
		then, thenMap := g.row()
		program, err := expr.Compile(source, expr.Env(environment))
		if err != nil {
			t.Fatalf("expr refuses %s: %v", source, err)
		}
		want, err := expr.Run(program, map[string]any{"op": "update", "new": nowMap, "old": thenMap})
		if err != nil {
			t.Fatalf("%s: %v", source, err)
		}
		checked, problems := checkExpr(source, env{table: table, ops: everyOp})
		if len(problems) > 0 {
			t.Fatalf("%s: %+v", source, problems)
		}
		f := newFrame(table)
		f.begin(testTx, &cdc.Change{Op: cdc.Update, Table: table, New: now.tuple(table), Old: then.tuple(table)})
		if got := f.try(checked.root); got != (Verdict{Truth: truthOf(want.(bool))}) {
			t.Fatalf("%s\n on %v and %v: %+v, and expr says %v", source, now, then, got, want)
		}
	})
}

// row is a random row, as Postgres prints it and as expr sees it.
func (g *grammar) row() (row, map[string]any) {
	id := rapid.IntRange(-4, 4).Draw(g.T, "id")
	quarters := rapid.IntRange(-20, 20).Draw(g.T, "price")
	status := g.pick("a", "b", "ab", "", " a ", "ä")
	vacant := rapid.Bool().Draw(g.T, "vacant")
	tags := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab"}), 0, 3).Draw(g.T, "tags")
	numbers := rapid.SliceOfN(rapid.IntRange(-1, 3), 0, 3).Draw(g.T, "numbers")
	anyTags, anyNumbers, numberTexts := []any{}, []any{}, []string{}
	for _, s := range tags {
		anyTags = append(anyTags, s)
	}
	for _, n := range numbers {
		anyNumbers, numberTexts = append(anyNumbers, n), append(numberTexts, strconv.Itoa(n))
	}
	r := row{
		"id": strconv.Itoa(id), "price": strconv.FormatFloat(float64(quarters)/4, 'f', 2, 64), "status": status, "vacant": string("ft"[b2i(vacant)]),
		"tags": "{" + strings.Join(tags, ",") + "}", "numbers": "{" + strings.Join(numberTexts, ",") + "}",
	}
	m := map[string]any{"id": id, "price": float64(quarters) / 4, "status": status, "vacant": vacant, "tags": anyTags, "numbers": anyNumbers}
	return r, m
}

// TestPostgres compares comparisons with what Postgres itself says of the same values, NULLs included: equality is
// IS NOT DISTINCT FROM, and an order with NULL is false.
func TestPostgres(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), "set timezone to 'UTC'"); err != nil {
		t.Fatal(err)
	}
	values := map[string]struct {
		sql    string
		values []string
	}{
		"id":        {"int8", []string{"0", "-1", "9223372036854775807", "-9223372036854775808"}},
		"price":     {"numeric", []string{"0", "-0.0", "1", "1.000", "0.1", "NaN", "Infinity", "-Infinity", "9007199254740993", "1e-30"}},
		"rate":      {"float8", []string{"0", "-0", "0.1", "NaN", "Infinity", "1e300", "5e-324"}},
		"vacant":    {"bool", []string{"t", "f"}},
		"note":      {"text collate \"C\"", []string{"", "a", "A", "ab", "ä", "한", " "}},
		"starts_at": {"timestamptz", []string{"2026-03-04 15:30:00+00", "2026-03-04 15:30:00.000001+00", "infinity", "-infinity", "0044-03-15 00:00:00+00 BC"}},
		"local_at":  {"timestamp", []string{"2026-03-04 15:30:00", "2026-03-04 00:00:00", "infinity"}},
		"day":       {"date", []string{"2026-03-04", "2026-03-05", "-infinity", "9999-12-31"}},
		"tags":      {"text[]", []string{"{}", "{a}", "{a,NULL}", "{a,b}", `{"a,b"}`}},
		"data":      {"jsonb", []string{`{"a": 1}`, `{"a": 1.0}`, `[1, "x", null]`, `"x"`, "true", "null"}},
	}
	pairs := [][2]string{
		{"id", "id"},
		{"price", "price"},
		{"rate", "rate"},
		{"id", "price"},
		{"id", "rate"},
		{"vacant", "vacant"},
		{"note", "note"},
		{"starts_at", "starts_at"},
		{"local_at", "local_at"},
		{"day", "day"},
		{"local_at", "day"},
		{"tags", "tags"},
		{"data", "data"},
	}
	for _, pair := range pairs {
		operators := map[string]string{"==": "is not distinct from", "!=": "is distinct from"}
		if pair[0] != "vacant" && pair[0] != "tags" && pair[0] != "data" {
			for _, o := range []string{"<", "<=", ">", ">="} {
				operators[o] = o
			}
		}
		for ours, theirs := range operators {
			for _, a := range append(values[pair[0]].values, "\x00") {
				for _, b := range append(values[pair[1]].values, "\x00") {
					comparePostgres(t, conn, [4]string{pair[0], ours, pair[1], theirs}, [2]string{a, b}, [2]string{values[pair[0]].sql, values[pair[1]].sql})
				}
			}
		}
	}
}

// comparePostgres tries one operator on one pair of values. A JSON null is NULL to a rule.
func comparePostgres(t *testing.T, conn *pgx.Conn, how [4]string, texts, sqlTypes [2]string) {
	t.Helper()
	now, then := row{}, row{}
	literals := [2]string{"null", "null"}
	for i, r := range []row{now, then} {
		if texts[i] == "\x00" || texts[i] == "null" {
			continue
		}
		r[how[2*i]] = texts[i]
		literals[i] = "'" + texts[i] + "'"
	}
	var want bool
	sql := fmt.Sprintf("select coalesce(%s::%s %s %s::%s, false)", literals[0], sqlTypes[0], how[3], literals[1], sqlTypes[1])
	if err := conn.QueryRow(t.Context(), sql).Scan(&want); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	source := fmt.Sprintf("new.%s %s old.%s", how[0], how[1], how[2])
	table := schedules()
	got := ask(t, source, env{table: table, ops: everyOp}, &cdc.Change{Op: cdc.Update, New: now.tuple(table), Old: then.tuple(table)})
	if got != (Verdict{Truth: truthOf(want)}) {
		t.Errorf("%s with %q and %q: %+v, and Postgres says %v", source, texts[0], texts[1], got, want)
	}
}
