package daemon

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"postman/internal/pgcluster/pgtest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// checkSchema is the database that the archives of testdata/check are checked against.
const checkSchema = `
	create type visit_kind as enum ('viewing', 'meeting');
	create table staff (id int primary key, email text, name text not null, born date);
	create table visits (id bigint generated always as identity primary key, kind visit_kind not null, staff_id int, note text, price numeric(12,2), data jsonb, pin text);
	create table archive (id int primary key, note text);
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
