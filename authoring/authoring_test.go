package authoring

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/rogpeppe/go-internal/txtar"
	"go.uber.org/goleak"

	"postman/cdc"
	"postman/daemon"
	"postman/internal/pgcluster/pgtest"
	"postman/value"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgtest.Shared(m)) }

func col(name string, oid uint32) cdc.Column {
	return cdc.Column{Column: value.Column{Name: name, Type: value.Type{OID: oid, Base: oid, Name: value.TypeName(oid)}}}
}

// visits is the table of most tests here.
func visits() *cdc.Catalog {
	id, kind, starts := col("id", pgtype.Int4OID), col("kind", pgtype.TextOID), col("starts_at", pgtype.TimestamptzOID)
	id.Key, id.PK, id.NotNull, kind.NotNull = true, true, true, true
	kind.Enum = []string{"visit", "call", "meeting"}
	t := &cdc.Table{
		TableName: cdc.TableName{Schema: "public", Name: "visits"}, Identity: cdc.IdentityFull,
		Columns: []cdc.Column{id, kind, starts, col("staff_id", pgtype.Int4OID), col("note", pgtype.TextOID), col("done", pgtype.BoolOID), col("price", pgtype.NumericOID)},
	}
	narrow := *t
	narrow.Name, narrow.Identity = "narrow", cdc.IdentityDefault
	return &cdc.Catalog{Tables: map[cdc.TableName]*cdc.Table{t.TableName: t, narrow.TableName: &narrow}, Names: []cdc.TableName{t.TableName, narrow.TableName}}
}

// folder writes files, and returns a configuration that knows them, and the schema.
func folder(t testing.TB, files map[string]string) (daemon.Config, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	c := daemon.DefaultConfig()
	c.Rules, c.Templates = filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "templates")
	schema := filepath.Join(dir, "schema.json")
	if err := os.WriteFile(schema, visits().Schema(), 0o600); err != nil {
		t.Fatal(err)
	}
	return c, schema
}

// told is a report in a few words.
func told(r *TestReport) string {
	var b strings.Builder
	for _, rule := range r.Rules {
		fmt.Fprintf(&b, "%s\n", rule.Rule.Name)
		for _, t := range rule.Tests {
			mark := "ok"
			if t.NotRun != "" {
				mark = "not run: " + t.NotRun
			}
			if len(t.Failures) > 0 {
				mark = "FAILED"
			}
			fmt.Fprintf(&b, "  %s: %s\n", t.Name, mark)
			for _, f := range t.Failures {
				fmt.Fprintf(&b, "    %d:%d %s: %s\n", f.Place.Line, f.Place.Column, f.Kind, strings.ReplaceAll(f.String(), "\n", "\n    "))
			}
			for _, n := range t.Notes {
				fmt.Fprintf(&b, "    note: %s\n", n)
			}
		}
		for _, c := range rule.Clauses {
			fmt.Fprintf(&b, "  lets %v, keeps %v: %s\n", c.Lets, c.Keeps, c.Text)
		}
	}
	passed, failed, notRun := r.Count()
	fmt.Fprintf(&b, "%d passed, %d failed, %d not run, untested %v\n", passed, failed, notRun, r.Untested())
	return b.String()
}

// TestGolden runs rules with tests of every kind, those that hold and those that do not.
func TestGolden(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 6 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			files, want := make(map[string]string), ""
			for _, f := range archive.Files {
				if files[f.Name] = string(f.Data); f.Name == "want" {
					want = string(f.Data)
				}
			}
			delete(files, "want")
			config, schema := folder(t, files)
			report, err := Test(t.Context(), config, TestOptions{Schema: schema})
			got := ""
			if err != nil {
				got = err.Error() + "\n"
			} else {
				got = told(report)
			}
			got = strings.ReplaceAll(got, filepath.Dir(config.Rules)+string(filepath.Separator), "")
			if *update {
				archive.Files[len(archive.Files)-1] = txtar.File{Name: "want", Data: []byte(got)}
				if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

var oneRule = map[string]string{
	"rules.yaml": `
rules:
  - name: visit
    on: {table: visits, ops: [insert]}
    to: {query: select email from staff where id = @new.staff_id}
    template: visit
    tests:
      - {insert: {id: 1, kind: visit}, match: true}
`,
	"templates/visit.html": `{{define "subject"}}Visit{{end}}{{define "body"}}<p>x</p>{{end}}`,
}

func TestMisuse(t *testing.T) {
	t.Parallel()
	config, schema := folder(t, oneRule)
	for name, c := range map[string]struct {
		tune func(*daemon.Config)
		o    TestOptions
		want string
	}{
		"no tables":             {o: TestOptions{}, want: "--schema schema.json"},
		"both":                  {o: TestOptions{Schema: schema, Database: true}, want: "leave one of them out"},
		"an unknown rule":       {o: TestOptions{Schema: schema, Rules: []string{"visitt"}}, want: "did you mean visit?"},
		"no database":           {o: TestOptions{Database: true}, want: "DATABASE_URL"},
		"no such file":          {o: TestOptions{Schema: schema, Paths: []string{"nowhere.yaml"}}, want: "PM001"},
		"no such schema":        {o: TestOptions{Schema: "nowhere.json"}, want: "postman schema > nowhere.json"},
		"an unknown time zone":  {tune: func(c *daemon.Config) { c.Timezone = "Seoul" }, o: TestOptions{Schema: schema}, want: "Asia/Seoul"},
		"a domain that is none": {tune: func(c *daemon.Config) { c.FromDomains = []string{"a b"} }, o: TestOptions{Schema: schema}},
	} {
		c1 := config
		if c.tune != nil {
			c.tune(&c1)
		}
		_, err := Test(t.Context(), c1, c.o)
		switch {
		case c.want == "" && err != nil: // no test says anything of mails
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !daemon.Misconfigured(err)):
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
}

// TestChoose runs some of the rules.
func TestChoose(t *testing.T) {
	t.Parallel()
	two := strings.Replace(oneRule["rules.yaml"], "rules:\n", "rules:\n  - {name: other, on: {table: visits, ops: [delete]}, to: {address: a@example.com}, template: gone}\n", 1)
	config, schema := folder(t, map[string]string{"rules.yaml": two})
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, "other visit"},
		{[]string{"visit"}, "visit"},
		{[]string{"visit", "other"}, "other visit"},
	} {
		report, err := Test(t.Context(), config, TestOptions{Schema: schema, Rules: c.names})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, r := range report.Rules {
			names = append(names, r.Rule.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%q runs %q", c.names, got)
		}
	}
}

// TestMessagesNeedNoDatabase runs tests of rules that are on no table.
func TestMessagesNeedNoDatabase(t *testing.T) {
	t.Parallel()
	config, _ := folder(t, map[string]string{
		"rules.yaml": `
rules:
  - name: reset
    on: {message: reset}
    when: message.n > 3
    to: message.email
    template: reset
    tests:
      - {message: {email: a@example.com, n: 4}, to: a@example.com, subject: Reset 4}
      - {message: {email: a@example.com, n: "4"}, match: false}
`,
		"templates/reset.html": `{{define "subject"}}Reset {{.message.n}}{{end}}{{define "body"}}<p>x</p>{{end}}`,
	})
	report, err := Test(t.Context(), config, TestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if passed, _, _ := report.Count(); passed != 2 {
		t.Error(told(report))
	}
}

// TestSameWhenever runs tests of moments twice: nothing hangs on when that is.
func TestSameWhenever(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile("testdata/clock.txtar")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, f := range archive.Files {
		files[f.Name] = string(f.Data)
	}
	config, schema := folder(t, files)
	for range 2 {
		report, err := Test(t.Context(), config, TestOptions{Schema: schema})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(files["want"], told(report)); diff != "" {
			t.Error(diff)
		}
	}
}

// TestRepository runs the tests of the example's rules, against its database and against the schema of that.
func TestRepository(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	schema, err := os.ReadFile("../examples/crm/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, string(schema))
	config := daemon.DefaultConfig()
	config.Rules, config.Templates, config.DatabaseURL = "../rules.yaml", "../templates", daemon.Secret(url)
	const file = "../examples/crm/schema.json"
	for _, o := range []TestOptions{{}, {Schema: file}, {Database: true}} {
		report, err := Test(t.Context(), config, o)
		if err != nil {
			t.Fatal(err)
		}
		passed, failed, notRun := report.Count()
		if failed+notRun > 0 || passed < 20 || len(report.Untested()) > 0 {
			t.Error(told(report))
		}
		for _, r := range report.Rules {
			if shown, all := r.Coverage(); shown != all || saysOfMail(r.Rule) == nil {
				t.Errorf("%s: the tests show %d of %d, and are to say something of its mail", r.Rule.Name, shown, all)
			}
		}
	}
}

// TestDocs holds that the rules of docs/testing.md load and that their tests hold.
func TestDocs(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	url := pgtest.Database(t)
	schema, err := os.ReadFile("../examples/crm/schema.sql")
	if err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, url, string(schema))
	blocks := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 3 {
		t.Fatalf("%d blocks", len(blocks))
	}
	for _, m := range blocks {
		config, _ := folder(t, map[string]string{"rules.yaml": m[1]})
		config.Templates, config.DatabaseURL = "../templates", daemon.Secret(url)
		report, err := Test(t.Context(), config, TestOptions{})
		if err != nil {
			t.Fatalf("%v in\n%s", err, m[1])
		}
		if passed, failed, _ := report.Count(); failed > 0 || passed == 0 {
			t.Errorf("%s in\n%s", told(report), m[1])
		}
	}
}
