package rules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
)

// lintCatalog has two tables with columns that can be NULL, written in capitals, and columns that cannot; of deals the stream
// carries the key of the old row, of leads all of it.
func lintCatalog() *cdc.Catalog {
	c := catalog()
	for name, identity := range map[string]cdc.Identity{"deals": cdc.IdentityDefault, "leads": cdc.IdentityFull} {
		t := &cdc.Table{TableName: cdc.TableName{Schema: "public", Name: name}, Identity: identity}
		for _, column := range []cdc.Column{
			col("status", pgtype.TextOID), col("STAGE", pgtype.TextOID), col("vacant", pgtype.BoolOID), col("SOLD", pgtype.BoolOID),
			col("price", pgtype.NumericOID), col("rate", pgtype.Float8OID), col("DATA", pgtype.JSONBOID), col("closed_at", pgtype.TimestamptzOID),
			col("created_by", pgtype.Int4OID), col("UPDATED_BY", pgtype.Int4OID),
		} {
			column.NotNull = strings.ToLower(column.Name) == column.Name
			t.Columns = append(t.Columns, column)
		}
		id := col("id", pgtype.Int8OID)
		id.Key, id.PK, id.NotNull = true, true, true
		t.Columns = append(t.Columns, id)
		c.Tables[t.TableName] = t
		c.Names = append(c.Names, t.TableName)
	}
	return c
}

// TestLints holds what is warned of: a file for each kind, and beside it all that is said.
func TestLints(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob("testdata/lints/*.yaml")
	if err != nil || len(paths) < 10 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			t.Parallel()
			s, err := Read(path)
			if err != nil {
				t.Fatal(err)
			}
			set, err := Compile(s, lintCatalog())
			if err != nil {
				t.Fatal(err)
			}
			found := s.Silence(set.Lint(lintCatalog()), func(ID) bool { return true })
			got := strings.ReplaceAll(found.Error()+"\n", filepath.Dir(path)+string(filepath.Separator), "")
			golden := strings.TrimSuffix(path, ".yaml") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
			for _, e := range found {
				if !e.ID.Warning() {
					t.Errorf("%s is no warning", e.ID)
				}
			}
		})
	}
}
