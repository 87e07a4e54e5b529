package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/dispatch"
	"postman/rules"
	"postman/templates"
)

// loader reads rules and templates and checks them against each other and the database.
type loader struct {
	config Config
	conn   *pgx.Conn
	lookup *dispatch.Lookup
	// strict makes an error of the catalog one of the whole set, as in a reload; at start it breaks only its rule.
	strict bool
}

// load does all the fallible work of a reload before anything live is touched.
func (l *loader) load(ctx context.Context) (*live, error) {
	defer sparing()()
	source, err := rules.Read(l.config.Rules)
	if err != nil {
		return nil, refused{err}
	}
	mails, templateErr := loadTemplates(l.config.Templates)
	return l.compile(ctx, source, mails, errors.Join(checkSenders(source.Rules, &l.config), checkRelays(source.Rules, &l.config), templateErr))
}

// compile checks what was read, and nobody else has, against the database. Mistakes are those of the files that were found before.
func (l *loader) compile(ctx context.Context, source *rules.Source, mails *templates.Set, mistakes error) (*live, error) {
	catalog, err := cdc.LoadCatalog(ctx, l.conn, source.Tables())
	if err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	set, compileErr := source.Settle(catalog)
	if mistakes != nil || l.strict && compileErr != nil {
		return nil, refused{errors.Join(compileErr, mistakes)}
	}
	broken, err := (&checker{catalog: catalog, lookup: l.lookup, mails: mails, dir: l.config.Templates}).check(ctx, set)
	// A template that is not there is a mistake of the files; one that does not fit may be the catalog's, if a column was dropped.
	missing := slices.ContainsFunc(broken, func(e *rules.Error) bool { return e.ID == "PM501" })
	if err != nil || missing || l.strict && len(broken) > 0 {
		return nil, errors.Join(compileErr, asError(broken), err)
	}
	if errs, ok := errors.AsType[rules.Errors](compileErr); ok {
		broken = append(broken, errs...)
	} else if compileErr != nil {
		return nil, compileErr
	}
	return &live{
		source: source, rules: without(set, broken), templates: mails, broken: broken, needs: source.Needs(), catalog: catalog, loaded: time.Now(),
	}, nil
}

// asError is nil for an empty list.
func asError(errs rules.Errors) error {
	if len(errs) == 0 {
		return nil
	}
	return errs
}

// without leaves out the rules that errors name.
func without(set *rules.Set, broken rules.Errors) *rules.Set {
	if len(broken) == 0 {
		return set // its indexes are made
	}
	sound := slices.DeleteFunc(slices.Clone(set.Rules), func(r *rules.Rule) bool {
		return slices.ContainsFunc(broken, func(e *rules.Error) bool { return e.Rule == r.Name })
	})
	return &rules.Set{Rules: sound}
}

func loadTemplates(dir string) (*templates.Set, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the templates: %w", err)
	}
	defer root.Close() //nolint:errcheck // it was only read
	return templates.Load(root.FS())
}

func tables(needs []cdc.Need) []cdc.TableName {
	names := make([]cdc.TableName, len(needs))
	for i, n := range needs {
		names[i] = n.Table
	}
	return names
}
