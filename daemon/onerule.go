package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"postman/cdc"
	"postman/rules"
)

// OneRule reads a rule as its author left it, checked against the database, or against a file that Schema wrote (empty: the
// database). The table is that of the database; nil of a rule on a message. Mistakes of other rules are in nobody's way.
func OneRule(ctx context.Context, config *Config, schema, name string) (*rules.Rule, *cdc.Table, error) {
	source, readErr := rules.Read(config.Rules)
	mistakes, ok := errors.AsType[rules.Errors](readErr)
	if readErr != nil && (!ok || source == nil) {
		return nil, nil, readErr
	}
	if own := concerning(name, mistakes); len(own) > 0 {
		return nil, nil, own
	}
	i := slices.IndexFunc(source.Rules, func(r *rules.Rule) bool { return r.Name == name })
	if i < 0 {
		return nil, nil, noRule(config.Rules, name, source.Rules)
	}
	source.Rules = source.Rules[i : i+1]
	catalog, err := catalogFor(ctx, config, schema, source)
	if err != nil {
		return nil, nil, err
	}
	set, err := rules.Compile(source, catalog)
	if mistakes, ok := errors.AsType[rules.Errors](err); ok {
		if own := concerning(name, mistakes); len(own) > 0 {
			return nil, nil, own
		}
	} else if err != nil {
		return nil, nil, err
	}
	if len(set.Rules) == 0 {
		return nil, nil, err
	}
	return set.Rules[0], catalog.Tables[set.Rules[0].On.Table], nil
}

// concerning are the mistakes of one rule, and those of files as a whole.
func concerning(name string, all rules.Errors) (own rules.Errors) {
	for _, e := range all {
		if e.Rule == name || e.Rule == "" {
			own = append(own, e)
		}
	}
	return own
}

func noRule(path, name string, there []*rules.Rule) error {
	names := make([]string, len(there))
	for i, r := range there {
		names[i] = r.Name
	}
	hint := rules.Nearest(name, names)
	if hint == "" && len(names) > 0 {
		hint = "there are " + strings.Join(names, ", ")
	}
	if hint != "" {
		hint = "\n  → " + hint
	}
	return usage(fmt.Sprintf("there is no rule %q in %s%s", name, path, hint))
}

func catalogFor(ctx context.Context, config *Config, schema string, source *rules.Source) (*cdc.Catalog, error) {
	switch {
	case schema != "":
		return ReadSchema(schema)
	case config.DatabaseURL == "":
		return nil, usage("database_url: no database is named; set DATABASE_URL=postgres://user@host/database")
	}
	conn, err := openReader(ctx, config.DatabaseURL, config.Lookup.Timeout)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	catalog, err := cdc.LoadCatalog(ctx, conn, source.Tables())
	if err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	return catalog, nil
}
