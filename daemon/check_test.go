package daemon

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"postman/internal/pgcluster/pgtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// checkSchema is the database that the archives of testdata/check are checked against.
const checkSchema = `
	create type visit_kind as enum ('viewing', 'meeting');
	create table staff (id int primary key, email text, name text not null, born date);
	create table visits (id bigint generated always as identity primary key, kind visit_kind not null, staff_id int, note text, price numeric(12,2), data jsonb, pin text);
	create table archive (id int primary key, note text);
	create table people (id int primary key, email text, tz text);
	create table calls (id int primary key, person_id int, at timestamptz, day date);
	insert into visits (kind, staff_id, price, data) values ('viewing', 1, 5, '{"a": 1}'), ('viewing', 1, 5, '{"city": "Seoul"}');`

// TestCheck holds what is said of rules, queries and templates beside a real database: an archive for each kind of mistake.
func TestCheck(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, checkSchema)
	paths, err := filepath.Glob("testdata/check/*.txtar")
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d archives, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			config, dir := unpack(t, archive), ""
			config.DatabaseURL, dir = Secret(url), filepath.Dir(config.Rules)
			report, err := Check(t.Context(), config, CheckOptions{Plan: strings.Contains(path, "plan")})
			if err != nil {
				t.Fatal(err)
			}
			said := append([]string{report.Findings.Error()}, report.Untried...)
			got := strings.ReplaceAll(strings.Join(said, "\n"), dir+string(filepath.Separator), "") + "\n"
			want := &archive.Files[len(archive.Files)-1]
			if want.Name != "want" {
				t.Fatal("the archive's last file is to be want")
			}
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// unpack writes an archive's files to a folder of their own, and configures it.
func unpack(t *testing.T, archive *txtar.Archive) Config {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "templates"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range archive.Files {
		if f.Name != "want" {
			write(t, filepath.Join(dir, f.Name), string(f.Data))
		}
	}
	c := DefaultConfig()
	c.From = "Postman <postman@example.com>"
	c.Rules, c.Templates = filepath.Join(dir, "rules.yaml"), filepath.Join(dir, "templates")
	return c
}

// TestExampleIsClean holds that the repository's own rules have neither mistakes nor warnings, with the database and with its
// schema alone, and that editors find nothing in them.
func TestExampleIsClean(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	for _, file := range []string{"schema.sql", "data.sql"} {
		pgtest.Exec(t, url, read(t, filepath.Join("../examples/crm", file)))
	}
	c := DefaultConfig()
	c.DatabaseURL, c.Rules, c.Templates = Secret(url), "../rules.yaml", "../templates"
	report, err := Check(t.Context(), c, CheckOptions{Plan: true})
	if err != nil || len(report.Findings) > 0 || report.Rules == 0 || report.Prepared < report.Rules || report.WithRow == 0 || len(report.Untried) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
	catalog, err := Schema(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "schema.json")
	write(t, file, string(catalog.Schema()))
	c.DatabaseURL = ""
	report, err = Check(t.Context(), c, CheckOptions{Schema: file})
	if err != nil || len(report.Findings) > 0 || report.Prepared > 0 || report.Unprepared == 0 || report.Rendered != report.Rules || len(report.Untried) != 1 {
		t.Errorf("with the schema alone: %+v, %v", report, err)
	}
	text, err := EditorSchema(t.Context(), c, file)
	if err != nil {
		t.Fatal(err)
	}
	validate(t, text, read(t, "../rules.yaml"))
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// validate holds a rule file against a JSON Schema, as an editor does.
func validate(t *testing.T, schema []byte, file string) {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("rules.json", doc); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("rules.json")
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := yaml.Unmarshal([]byte(file), &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiled.Validate(instance); err != nil {
		t.Error(err)
	}
}

// TestLasting tells what Postgres has against a query from what it has against the moment: only the former breaks a rule.
func TestLasting(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{
		"42601": true, "42P01": true, "42501": true, "22P02": true, "23514": true, "XX000": true, "P0001": true, "0A000": true,
		"57014": false, "57P01": false, "53300": false, "55P03": false, "40P01": false, "08006": false, "58030": false,
	} {
		if lasting(&pgconn.PgError{Code: code}) != want {
			t.Errorf("%s: %v", code, !want)
		}
	}
}
