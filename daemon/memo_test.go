package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/dispatch"
	"postman/internal/pgcluster/pgtest"
	"postman/rules"
)

func TestMemo(t *testing.T) {
	t.Parallel()
	var m memo[int]
	var asked atomic.Int64
	no := errors.New("no")
	var group sync.WaitGroup
	for i := range 1000 {
		group.Go(func() {
			n := i % 10
			got, err := m.of(fmt.Sprint(n), func() (int, error) {
				asked.Add(1)
				if n == 7 {
					return n, no
				}
				return n, nil
			})
			if got != n || (n == 7) != errors.Is(err, no) {
				t.Errorf("%d: %d, %v", n, got, err)
			}
		})
	}
	group.Wait()
	if asked.Load() != 10 {
		t.Errorf("ten things were found out %d times", asked.Load())
	}
	for i := range 10 * mostRemembered {
		if got, err := m.of(fmt.Sprint("more ", i), func() (int, error) { return i, nil }); got != i || err != nil {
			t.Fatalf("%d: %d, %v", i, got, err)
		}
		if len(m.known) > mostRemembered {
			t.Fatalf("it knows %d", len(m.known))
		}
	}
}

// TestCheckTogether holds that what is tried once for several rules comes to what it comes to for each rule by itself.
func TestCheckTogether(t *testing.T) {
	t.Parallel()
	url := pgtest.Database(t)
	pgtest.Exec(t, url, checkSchema)
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "templates"), 0o700); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("rules:\n")
	const rule = `
  - name: rule-%[1]d
    about: %[2]s
    on: {table: visits, ops: [%[3]s]}
    load:
      other: "%[4]s"
      all[]: select id from archive
    to: {query: "%[5]s"}
    template: %[6]s
`
	pick := func(i, of int, from ...string) string { return from[i/of%len(from)] }
	const all = 2 * 2 * 4 * 5 * 7
	for i := range all {
		fmt.Fprintf(&text, rule, i, pick(i, 1, "good", "bad"), pick(i, 2, "insert", "update"),
			pick(i, 4, "select name from staff", "select nme from staff", "select name from staff where id = @new.id and email = @to.email", "select name, note from archive, staff where staff.id = @to.nothing"),
			pick(i, 16, "select email from staff", "select mail from staff", "select email, born from staff", "select born as email from staff", "select email from staff where id = @new.note"),
			pick(i, 80, "plain", "words", "named", "note", "old", "unread", "missing"))
	}
	write(t, filepath.Join(dir, "rules.yaml"), text.String())
	for name, body := range map[string]string{
		"plain": `{{.other.name}}`, "words": `{{if eq .about "bad"}}{{date .about}}{{end}}`, "named": `{{if eq (get . (print "ru" "le")) "rule-242" "rule-245"}}{{date .rule}}{{end}}`,
		"note": `{{.to.born}}{{.other.note}}`, "old": `{{.old.note}}`, "unread": `{{.all.id}}`,
	} {
		write(t, filepath.Join(dir, "templates", name+".html"), `{{define "subject"}}s{{end}}{{define "body"}}`+body+`{{end}}`)
	}
	source, err := rules.Read(filepath.Join(dir, "rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	mails, err := loadTemplates(filepath.Join(dir, "templates"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	catalog, err := cdc.LoadCatalog(t.Context(), conn, tables(source.Needs()))
	if err != nil {
		t.Fatal(err)
	}
	set, err := rules.Compile(source, catalog)
	if err != nil {
		t.Fatal(err)
	}
	lookup, err := dispatch.OpenLookup(t.Context(), url, dispatch.LookupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer lookup.Close(t.Context())
	check := func(set *rules.Set) rules.Errors {
		found, err := (&checker{catalog: catalog, lookup: lookup, mails: mails, dir: filepath.Join(dir, "templates")}).check(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	var alone rules.Errors
	kinds := make(map[rules.ID]int)
	for _, r := range set.Rules {
		found := check(&rules.Set{Rules: []*rules.Rule{r}})
		for _, e := range found {
			kinds[e.ID]++
		}
		alone = append(alone, found...)
	}
	if diff := cmp.Diff(alone, check(set)); diff != "" {
		t.Error(diff)
	}
	for _, id := range []rules.ID{"PM306", "PM308", "PM309", "PM501", "PM503"} {
		if kinds[id] == 0 || kinds[id] == all {
			t.Errorf("%s was found of %d rules", id, kinds[id])
		}
	}
}
