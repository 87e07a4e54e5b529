package rules

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"postman/internal/pgcluster/pgtest"
)

// sqlOf parses a query that stands in no file.
func sqlOf(source string) (*SQL, []problem) {
	return parseSQL(text{file: newFile("x.yaml", []byte(source)), value: source, line: 1, column: 1})
}

func TestSQL(t *testing.T) {
	t.Parallel()
	a, b := Param{"new", "a"}, Param{"old", "b"}
	tests := []struct {
		name, source, text string
		params             []Param
	}{
		{"no name", "select 1", "select 1", nil},
		{"one", "select @new.a", "select $1", []Param{a}},
		{"twice", "select @new.a, @old.b, @new.a", "select $1, $2, $1", []Param{a, b}},
		{"quoted", `select @new."Buyer ""Id"".x" from t`, "select $1 from t", []Param{{"new", `Buyer "Id".x`}}},
		{"letters of all kinds", "select @new.이름_2$ from t", "select $1 from t", []Param{{"new", "이름_2$"}}},
		{
			"all scopes", "select @message.k, @to.email, @row.id, @tick, @last_tick", "select $1, $2, $3, $4, $5",
			[]Param{{"message", "k"}, {"to", "email"}, {"row", "id"}, {"tick", ""}, {"last_tick", ""}},
		},
		{"cast", "select @new.a::text||@old.b", "select $1::text||$2", []Param{a, b}},
		{"no space", "select 1 where x=@new.a and y>=@old.b and z<> -@new.a", "select 1 where x=$1 and y>=$2 and z<> -$1", []Param{a, b}},
		{"in brackets", "select (@new.a)+@old.b", "select ($1)+$2", []Param{a, b}},
		{"in a string", "select '@new.a', 'it''s @new.a'", "select '@new.a', 'it''s @new.a'", nil},
		{"backslash is no escape", `select '\', @new.a, '\'`, `select '\', $1, '\'`, []Param{a}},
		{"E string", `select E'\'@new.a', e'\\', @new.a`, `select E'\'@new.a', e'\\', $1`, []Param{a}},
		{"not an E string", `select type'\', @new.a, '\'`, `select type'\', $1, '\'`, []Param{a}},
		{"continued E string", "select E'a'\n  '\\'@new.a', @new.a", "select E'a'\n  '\\'@new.a', $1", []Param{a}},
		{"dollar quotes", "select $$@new.a'$$, $x$ $$ @new.a $x$, @new.a", "select $$@new.a'$$, $x$ $$ @new.a $x$, $1", []Param{a}},
		{"dollar in a name", "select a$1, b$x$c, @new.a", "select a$1, b$x$c, $1", []Param{a}},
		{"quoted name", `select 1 as "@new.a ""x", @new.a`, `select 1 as "@new.a ""x", $1`, []Param{a}},
		{"comments", "select /* @new.a /* ' */ */ 1 -- @new.a '\n, @new.a", "select /* @new.a /* ' */ */ 1 -- @new.a '\n, $1", []Param{a}},
		{"comment behind an operator", "select 1 +-- @new.a\n2 -/* @old.b */@new.a", "select 1 +-- @new.a\n2 -/* @old.b */$1", []Param{a}},
		{
			"operators", "select a @> b, a <@ b, a @@ b, @ 5, @-5, a @>b, a #>> b, a ? 'x', a ?@x",
			"select a @> b, a <@ b, a @@ b, @ 5, @-5, a @>b, a #>> b, a ? 'x', a ?@x", nil,
		},
		{"operator and name", "select a @> @new.a, a <@ @old.b", "select a @> $1, a <@ $2", []Param{a, b}},
		{"semicolon", "select @new.a; -- done\n", "select $1", []Param{a}},
		{"brackets first", "(select @new.a) union values (1)", "(select $1) union values (1)", []Param{a}},
		{"comment first", "-- who\nWITH x AS (select 1) table x", "-- who\nWITH x AS (select 1) table x", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, problems := sqlOf(tt.source)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			if diff := cmp.Diff(tt.text, got.Text); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.params, got.Params); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSQLRefused has what is not clear: each is one mistake at a place.
func TestSQLRefused(t *testing.T) {
	t.Parallel()
	for source, offset := range map[string]int{
		"": 0, "  ": 0, "-- nothing": 0, "insert into t values (1)": 0, "select 1; select 2": 10, "select 1;;": 9, "select 1; 'x'": 10,
		"select 'x": 7, `select E'\'`: 8, "select $a$ $b$": 7, `select "x`: 7, "select /* /* */": 7, "select '한', @nwe.a": 12,
		"select a <@new.x": 9, "select a @@@new.x": 9, "select *-@new.x": 7, "select @amount": 7, "select x=@amount": 9, "select @new": 7,
		"select @new.": 7, "select @new.1": 7, "select @new.a.b": 13, `select @new."a`: 12, "select $1": 7, "select @NEW.a": 7,
	} {
		if _, problems := sqlOf(source); len(problems) == 0 || problems[0].offset != offset {
			t.Errorf("%s: %+v, want one at %d", source, problems, offset)
		}
	}
}

// TestSQLPostgres has Postgres parse what the tokenizer made of random queries: it finds the same parameters, so that
// nothing was taken for a name that is none, and nothing overlooked. Its z is never a name.
func TestSQLPostgres(t *testing.T) {
	t.Parallel()
	conn, err := pgx.Connect(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	fragments := []string{
		`@new.id::int8`, `@old."Buyer Id"::int8`, `@message.이름::text`, `1=@new.id`, `-@old.x::int8`, `2*@old.x::int8`, `(@message.k::text)`,
		`array[1] @> array[@old.x::int8]::int[]`, `array[1] <@ array[@old.x::int8]::int[]`, `array[1]@>array[1]`, `array[1]<@array[1]`,
		`'a' || @message.k`, `'it''s @new.z '''`, `E'\\' || '@new.z'`, `E'\'@new.z'`, `e'\\'`, `'\'`, `U&'d\0061t'`, "E'a'\n '\\'@new.z'", `B'1'`,
		`$$ @new.z ' $$`, `$a$ $$ @new.z $b$ $a$`, `1 as "@new.z ""q"`, "/* @new.z /* ' */ \" */ 1", "1 -- @new.z ' /*\n",
		`@ -5`, "5 +-- @new.z\n 3", `3-/* @new.z */@old.x::int8`, `to_tsvector('simple', 'a')@@to_tsquery('a')`,
		`'{"a": 1}'::jsonb ? 'a'`, `'{"a": [1]}'::jsonb #> '{a,0}'`, `1e5`, `1.5`, `date'2026-01-01'`,
	}
	rapid.Check(t, func(rt *rapid.T) {
		parts := rapid.SliceOfN(rapid.SampledFrom(fragments), 1, 8).Draw(rt, "parts")
		source := "select " + strings.Join(parts, rapid.SampledFrom([]string{", ", ",", "\n,"}).Draw(rt, "comma"))
		sql, problems := sqlOf(source)
		if len(problems) > 0 {
			rt.Fatalf("%s: %+v", source, problems)
		}
		got, err := conn.Prepare(t.Context(), "", sql.Text)
		if err != nil {
			rt.Fatalf("%s: %v", sql.Text, err)
		}
		if len(got.ParamOIDs) != len(sql.Params) || slices.ContainsFunc(sql.Params, func(p Param) bool { return p.Name == "z" }) {
			rt.Fatalf("%s: %d parameters, want those of %v", sql.Text, len(got.ParamOIDs), sql.Params)
		}
	})
}

// FuzzSQL holds that the tokenizer comes to an end, and changes nothing but names.
func FuzzSQL(f *testing.F) {
	for _, seed := range []string{
		"select @new.a", `select E'\'' @new.a`, `select $x$ $x$, @old."b"`, "select /* /* */ a <@ @new.x -- x\n;", "@", "$", "$$", "'", "\xff@new.\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, source string) {
		sql, problems := sqlOf(source)
		for _, p := range problems {
			if p.offset < 0 || p.offset > len([]rune(source)) || p.message == "" {
				t.Errorf("%+v", p)
			}
		}
		if len(problems) > 0 {
			return
		}
		for i := range sql.Params {
			if !strings.Contains(sql.Text, "$"+strconv.Itoa(i+1)) {
				t.Errorf("no parameter %d in %q", i+1, sql.Text)
			}
		}
		if len(sql.Params) == 0 && !strings.HasPrefix(source, sql.Text) {
			t.Errorf("%q was changed to %q", source, sql.Text)
		}
	})
}
