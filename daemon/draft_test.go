package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"pgregory.net/rapid"

	"postman/cdc"
	"postman/internal/pgcluster/pgtest"
	"postman/rules"
	"postman/value"
)

// TestDraftIsSound holds that what is drafted for any table has neither mistakes nor warnings, whatever the names in it.
func TestDraftIsSound(t *testing.T) {
	t.Parallel()
	base, n := t.TempDir(), 0
	schema := filepath.Join(base, "schema.json")
	rapid.Check(t, func(t *rapid.T) {
		table := drawTable(t)
		catalog := &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{table.TableName: table}}
		if table.Identity == cdc.IdentityNothing {
			catalog.Unidentified = map[cdc.TableName]string{table.TableName: "it has none"}
		}
		if err := os.WriteFile(schema, catalog.Schema(), 0o600); err != nil {
			t.Fatal(err)
		}
		n++
		dir := filepath.Join(base, strconv.Itoa(n))
		c := DefaultConfig()
		c.Rules, c.Templates = filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "templates")
		ops := []string{"insert", "update", "delete"}
		if table.Identity == cdc.IdentityNothing {
			ops = ops[:1]
		}
		o := DraftOptions{Name: "둘째", Table: table.String(), Ops: rapid.SliceOfNDistinct(rapid.SampledFrom(ops), 1, len(ops), rapid.ID).Draw(t, "ops"), Schema: schema}
		if _, err := Draft(t.Context(), c, o); err != nil {
			t.Fatal(err)
		}
		report, err := Check(t.Context(), c, CheckOptions{Schema: schema})
		if err == nil { // a secret that is not called sensitive is the table's to have
			report.Findings = slices.DeleteFunc(report.Findings, func(e *rules.Error) bool { return e.ID == "PM212" || e.ID == "PM225" })
		}
		if err != nil || len(report.Findings) > 0 || report.Rendered != report.Rules {
			text, _ := os.ReadFile(c.Rules)
			t.Fatalf("%v\n%v\n%s", err, report.Findings, text)
		}
	})
}

// notBlank: a name of white space alone cannot be written in a rule.
func notBlank(s string) bool { return strings.TrimSpace(s) != "" }

func drawTable(t *rapid.T) *cdc.Table {
	name := rapid.OneOf(rapid.SampledFrom([]string{"orders", "Order", "no", "on", "12", "주문", "a b"}), rapid.StringMatching(`[^.\x00]{1,8}`)).Filter(notBlank)
	table := &cdc.Table{
		TableName: cdc.TableName{Schema: rapid.SampledFrom([]string{"public", "shop"}).Draw(t, "schema"), Name: name.Draw(t, "table")},
		Identity:  rapid.SampledFrom([]cdc.Identity{cdc.IdentityDefault, cdc.IdentityFull, cdc.IdentityNothing}).Draw(t, "identity"),
	}
	names := rapid.SliceOfNDistinct(rapid.OneOf(
		rapid.SampledFrom([]string{"id", "email", "kind", "token", "true", "Buyer Id", "값", "{{.x}}", "<b>", `a"b`, "a: b", "a #b", "null", "new", "m²"}),
		rapid.StringMatching(`[^\x00]{1,8}`)).Filter(notBlank), 1, 8, rapid.ID).Draw(t, "columns")
	for i, name := range names {
		base := rapid.SampledFrom([]uint32{pgtype.Int4OID, pgtype.TextOID, pgtype.BoolOID, pgtype.UUIDOID, pgtype.TimestamptzOID, pgtype.JSONBOID, pgtype.TextArrayOID, pgtype.ByteaOID, 0}).Draw(t, "type")
		c := cdc.Column{Column: value.Column{Name: name, Type: value.Type{Base: base, Name: "t"}}, NotNull: rapid.Bool().Draw(t, "not null")}
		if base == pgtype.TextOID && rapid.Bool().Draw(t, "enum") {
			c.Enum = rapid.SliceOfNDistinct(rapid.OneOf(rapid.SampledFrom([]string{"open", "a b", "no", "'x'", "가"}), rapid.StringMatching(`[^\x00]{1,5}`)), 1, 3, rapid.ID).Draw(t, "labels")
		}
		if i == 0 && table.Identity != cdc.IdentityNothing {
			c.PK, c.NotNull = true, true
			c.Key = true
		}
		table.Columns = append(table.Columns, c)
	}
	return table
}

// TestDraftFindsSomebody holds whom a draft tells, of what a real database says.
func TestDraftFindsSomebody(t *testing.T) {
	t.Parallel()
	w := &world{t: t, url: pgtest.Database(t), dir: t.TempDir()}
	w.sql(`create schema "Hr"`, `create table "Hr"."Staff" ("Id" int primary key, email text, name text)`,
		`create table visits (id int primary key, kind text, "By" int references "Hr"."Staff", "order" int)`,
		"create table customers (id int primary key, email text)", "create table plain (id int)", "create view v as select 1 as x")
	c := DefaultConfig()
	c.DatabaseURL, c.Rules, c.Templates = Secret(w.url), filepath.Join(w.dir, "rules"), filepath.Join(w.dir, "templates")
	if err := os.Mkdir(c.Rules, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		o    DraftOptions
		want string
	}{
		"by-reference": {DraftOptions{Table: "visits", Ops: []string{"insert"}}, `select email, name from "Hr"."Staff" where "Id" = @new.By`},
		"own":          {DraftOptions{Table: "customers", Ops: []string{"insert", "update"}}, "to: new.email"},
		"nobody":       {DraftOptions{Table: "plain", Ops: []string{"insert"}}, "to: {address: you@example.com}"},
		"not-told":     {DraftOptions{Table: "customers", Ops: []string{"delete"}}, "to: {address: you@example.com}"},
		"message":      {DraftOptions{Message: "reset"}, "to: message.email"},
	} {
		test.o.Name = name
		files, err := Draft(t.Context(), c, test.o)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := read(t, files[0]); !strings.Contains(text, test.want) {
			t.Errorf("%s: no %s in\n%s", name, test.want, text)
		}
	}
	report, err := Check(t.Context(), c, CheckOptions{})
	report.Findings = slices.DeleteFunc(report.Findings, func(e *rules.Error) bool { return e.ID == "PM225" }) // where readers live, only the author knows
	if err != nil || len(report.Findings) > 0 || report.Rules != 5 {
		t.Errorf("%v, %+v", err, report)
	}
	for name, test := range map[string]struct {
		o    DraftOptions
		want string
	}{
		"taken":          {DraftOptions{Name: "own", Table: "visits"}, "there is a rule own already"},
		"no table":       {DraftOptions{Name: "x", Table: "visit"}, "did you mean visits?"},
		"a view":         {DraftOptions{Name: "x", Table: "v"}, "cannot be watched"},
		"no operation":   {DraftOptions{Name: "x", Table: "visits", Ops: []string{"upsert"}}, "no operation"},
		"no identity":    {DraftOptions{Name: "x", Table: "plain", Ops: []string{"update"}}, "REPLICA IDENTITY"},
		"no name at all": {DraftOptions{Name: "two words", Message: "m"}, "one word"},
	} {
		_, err := Draft(t.Context(), c, test.o)
		if err == nil || !Misconfigured(err) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
	}
}

// TestDraftOverwritesNothing holds that a rule finds its place in a file that people have written, or is refused.
func TestDraftOverwritesNothing(t *testing.T) {
	t.Parallel()
	const one = "  - name: one\n    on: {message: m}\n    to: message.email\n    template: one\n"
	for name, test := range map[string]struct {
		before, want, refused string
	}{
		"nothing":            {"", "rules:\n  #", ""},
		"an empty list":      {"# ours\nsensitive: []\nrules: [] # none yet\n", "# ours\nsensitive: []\nrules: # none yet\n  #", ""},
		"no list":            {"rules:\n", "", "mistakes, which come first"},
		"behind the last":    {"rules:\n" + one, "rules:\n" + one + "\n  #", ""},
		"not indented":       {"rules:\n- name: one\n  on: {message: m}\n  to: message.email\n  template: one", "  template: one\n\n# docs", ""},
		"before another key": {"rules:\n" + one + "\n# secrets\nsensitive: [message.m.token]\n", one + "\n  # docs", ""},
		"with its comments":  {"rules:\n" + one + "    # until May\n", "    # until May\n\n  # docs", ""},
		"a text that ends in blank lines": {
			"rules:\n" + strings.Replace(one, "message.email\n    template: one", "|+\n      message.email\n\n\n", 1) + "    template: one\n    about: |+\n      x\n\n\n", "", "no place for it",
		},
		"in brackets":   {"rules: [{name: one, on: {message: m}, to: message.email, template: one}]\n", "", "written in [ ]"},
		"with mistakes": {"rules:\n  - name: one\n", "", "mistakes, which come first"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := DefaultConfig()
			c.Rules, c.Templates = filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "templates")
			if name != "nothing" {
				write(t, c.Rules, test.before)
			}
			_, err := Draft(t.Context(), c, DraftOptions{Name: "two", Message: "m"})
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || read(t, c.Rules) != test.before {
					t.Errorf("%v; the file is\n%s", err, read(t, c.Rules))
				}
				if _, err := os.Stat(c.Templates); !errors.Is(err, os.ErrNotExist) {
					t.Error("a template was made")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			after := read(t, c.Rules)
			if !strings.Contains(after, test.want) {
				t.Errorf("no %q in\n%s", test.want, after)
			}
			for line := range strings.Lines(test.before) {
				if line = strings.TrimSpace(line); !strings.Contains(after, strings.TrimSuffix(line, "[] # none yet")) {
					t.Errorf("%q is gone from\n%s", line, after)
				}
			}
			if entries, err := os.ReadDir(dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
				t.Errorf("something is left: %v, %v", entries, err)
			}
		})
	}
}
