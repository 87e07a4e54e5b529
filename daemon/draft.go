package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"postman/cdc"
	"postman/rules"
)

// DraftOptions is what an author asks of Draft.
type DraftOptions struct {
	Name    string
	Table   string   // what the rule is about: a table,
	Ops     []string // with these operations,
	Message string   // or a message
	Schema  string   // a file that Schema wrote, in the place of a database
}

// Draft writes a rule to begin with, its template and its tests, and returns the files that it wrote. The rule is added to the
// configured file, or gets one of its own in the configured folder. Nothing is ever overwritten.
func Draft(ctx context.Context, config Config, o DraftOptions) ([]string, error) {
	if name := rules.NameFor(o.Name); name != o.Name {
		return nil, usage(fmt.Sprintf("%q is no name of a rule, which is one word of letters, digits, dots, underscores and hyphens", o.Name) + hint(calls(name)))
	}
	source, err := existing(config.Rules)
	if err != nil {
		return nil, err
	}
	d := &rules.Draft{Name: o.Name, Message: o.Message, To: "message.email"}
	if slices.ContainsFunc(source.Rules, func(r *rules.Rule) bool { return r.Name == d.Name }) {
		return nil, usage(fmt.Sprintf("there is a rule %s already: choose another name", d.Name))
	}
	if o.Table != "" {
		if err := draftTable(ctx, config, o, d); err != nil {
			return nil, err
		}
	}
	if d.Template, err = freeTemplate(config.Templates, d); err != nil {
		return nil, err
	}
	return put(config, d)
}

func calls(name string) string {
	if name == "" {
		return ""
	}
	return "call it " + name
}

// existing reads the rules that there are; none is fine.
func existing(path string) (*rules.Source, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return new(rules.Source), nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the rules: %w", err)
	}
	if info.IsDir() {
		if files, err := filepath.Glob(filepath.Join(path, "*.y*ml")); err == nil && len(files) == 0 {
			return new(rules.Source), nil
		}
	} else if text, err := os.ReadFile(path); err == nil && len(bytes.TrimSpace(text)) == 0 {
		return new(rules.Source), nil
	}
	source, err := rules.Read(path)
	if err != nil {
		return nil, refused{fmt.Errorf("the rules that there are have mistakes, which come first:\n%w", err)}
	}
	return source, nil
}

// draftTable looks the table up, and how to find somebody to tell.
func draftTable(ctx context.Context, config Config, o DraftOptions, d *rules.Draft) error {
	name := tableName(o.Table)
	catalog, references, err := look(ctx, config, o.Schema, name)
	if err != nil {
		return err
	}
	table := catalog.Tables[name]
	if table == nil {
		what := "the database has no table " + name.String()
		if why := catalog.Unwatchable[name]; why != "" {
			what = name.String() + " cannot be watched: " + why
		}
		return usage(what + hint(rules.Nearest(name.String(), (&checker{catalog: catalog}).tables())))
	}
	if d.Table = table; len(table.Columns) == 0 {
		return usage(name.String() + " has no columns: there is nothing to tell")
	}
	for _, word := range o.Ops {
		op, ok := map[string]cdc.Op{"insert": cdc.Insert, "update": cdc.Update, "delete": cdc.Delete}[word]
		if !ok {
			return usage(word + " is no operation\n  → there are insert, update and delete")
		}
		if why := catalog.Unidentified[name]; op != cdc.Insert && why != "" {
			return usage(fmt.Sprintf("%ss of %s cannot be watched, the application's own would fail: %s", word, name, why))
		}
		d.Ops = append(d.Ops, op)
	}
	d.Query, d.To = somebody(d, references)
	return nil
}

func hint(text string) string {
	if text == "" {
		return ""
	}
	return "\n  → " + text
}

// tableName reads schema.name; without a schema it is public.
func tableName(s string) cdc.TableName {
	if schema, name, ok := strings.Cut(s, "."); ok {
		return cdc.TableName{Schema: schema, Name: name}
	}
	return cdc.TableName{Schema: "public", Name: s}
}

// reference is a foreign key of one column to a table that has addresses.
type reference struct {
	column string
	table  *cdc.Table
	// As SQL, in quotes where they are needed.
	name, key string
}

// look reads the catalog, and to which tables the table refers.
func look(ctx context.Context, config Config, file string, name cdc.TableName) (*cdc.Catalog, []reference, error) {
	if file != "" {
		catalog, err := ReadSchema(file)
		return catalog, nil, err
	}
	if config.DatabaseURL == "" {
		return nil, nil, usage("database_url: no database is named; set DATABASE_URL=postgres://user@host/database, or name a schema: --schema schema.json")
	}
	conn, err := openReader(ctx, config.DatabaseURL, config.Lookup.Timeout)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		select a.attname, fn.nspname, fc.relname, quote_ident(fa.attname),
		       case fn.nspname when 'public' then '' else quote_ident(fn.nspname) || '.' end || quote_ident(fc.relname)
		  from pg_constraint k
		       join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
		       join pg_attribute a on a.attrelid = k.conrelid and a.attnum = k.conkey[1]
		       join pg_class fc on fc.oid = k.confrelid join pg_namespace fn on fn.oid = fc.relnamespace
		       join pg_attribute fa on fa.attrelid = k.confrelid and fa.attnum = k.confkey[1]
		 where k.contype = 'f' and array_length(k.conkey, 1) = 1 and n.nspname = $1 and c.relname = $2
		 order by a.attnum`, name.Schema, name.Name)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the foreign keys: %w", err)
	}
	type key struct {
		Column, Schema, Table, Key, Quoted string
	}
	keys, err := pgx.CollectRows(rows, pgx.RowToStructByPos[key])
	if err != nil {
		return nil, nil, fmt.Errorf("reading the foreign keys: %w", err)
	}
	names := []cdc.TableName{name}
	for _, k := range keys {
		names = append(names, cdc.TableName{Schema: k.Schema, Name: k.Table})
	}
	catalog, err := cdc.LoadCatalog(ctx, conn, names)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the catalog: %w", err)
	}
	var references []reference
	for _, k := range keys {
		if t := catalog.Tables[cdc.TableName{Schema: k.Schema, Name: k.Table}]; t != nil && t.Column("email") >= 0 {
			references = append(references, reference{k.Column, t, k.Quoted, k.Key})
		}
	}
	return catalog, references, nil
}

// somebody is whom a first rule tells: a person whom the row refers to, or else the row's own address, or else one to be
// replaced.
func somebody(d *rules.Draft, references []reference) (query, to string) {
	for _, r := range references {
		parameter := d.Parameter(r.column)
		if parameter == "" {
			continue
		}
		columns := []string{"email"}
		for _, c := range []string{"name", "locale", "timezone"} {
			if r.table.Column(c) >= 0 {
				columns = append(columns, c)
			}
		}
		return fmt.Sprintf("select %s from %s where %s = %s", strings.Join(columns, ", "), r.name, r.key, parameter), ""
	}
	if own := d.Address("email"); own != "" {
		return "", own
	}
	return "", "{address: you@example.com} # to be replaced"
}

// mailName are names that a template can have.
var mailName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_]*$`)

// freeTemplate is a name for the rule's template that no file has.
func freeTemplate(dir string, d *rules.Draft) (string, error) {
	base := strings.ReplaceAll(d.Name, "-", "_")
	if !mailName.MatchString(base) {
		base = "mail"
		if d.Table != nil && mailName.MatchString(d.Table.Name) {
			base = d.Table.Name
		}
	}
	for n := 1; n < 100; n++ {
		name := base
		if n > 1 {
			name += "_" + strconv.Itoa(n)
		}
		files, err := filepath.Glob(filepath.Join(dir, name+".*html"))
		if err != nil {
			return "", fmt.Errorf("looking at the templates: %w", err)
		}
		if len(files) == 0 {
			return name, nil
		}
	}
	return "", usage("there are templates of that name already: choose another name for the rule")
}

// put writes the template, and then the rule that takes it.
func put(config Config, d *rules.Draft) ([]string, error) {
	grown, path, err := place(config.Rules, d)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(config.Templates, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of templates: %w", err)
	}
	mail := filepath.Join(config.Templates, d.Template+".html")
	if err := create(mail, []byte(d.Mail())); err != nil {
		return nil, fmt.Errorf("writing the template: %w", err)
	}
	if err := replace(path, grown); err != nil {
		return nil, errors.Join(fmt.Errorf("writing the rule: %w", err), os.Remove(mail))
	}
	return []string{path, mail}, nil
}

// place is the file that the rule belongs into, and what it holds with the rule.
func place(path string, d *rules.Draft) ([]byte, string, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, d.Template+".yaml")
		if _, err := os.Stat(path); err == nil {
			return nil, "", usage(path + " is there already: choose another name for the rule")
		}
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", fmt.Errorf("reading the rules: %w", err)
	}
	grown, err := rules.Append(path, text, d.Rule)
	if err != nil {
		return nil, "", refused{fmt.Errorf("%s: %w\n  → add the rule yourself:\n\n%s", path, err, d.Rule(2))}
	}
	return grown, path, nil
}

// create writes a file that is not there yet.
func create(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// replace swaps a file's text in one step: a daemon that watches it never reads half of it.
func replace(path string, text []byte) error {
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".postman-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
