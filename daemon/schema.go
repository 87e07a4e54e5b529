package daemon

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"postman/cdc"
	"postman/rules"
)

// ReadSchema reads a file that Schema wrote.
func ReadSchema(path string) (*cdc.Catalog, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, refused{fmt.Errorf("reading the schema: %w\n  → postman schema > %s writes it, where a database is at hand", err, path)}
	}
	c, err := cdc.ParseSchema(text)
	if err != nil {
		return nil, refused{fmt.Errorf("%s: %w", path, err)}
	}
	return c, nil
}

// Schema describes the database as rules see it.
func Schema(ctx context.Context, config Config) (*cdc.Catalog, error) {
	if config.DatabaseURL == "" {
		return nil, usage("database_url: no database is named; set DATABASE_URL=postgres://user@host/database")
	}
	conn, err := openReader(ctx, config.DatabaseURL, config.Lookup.Timeout)
	if err != nil {
		return nil, fmt.Errorf("connecting to the database (database_url): %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	c, err := cdc.LoadSchema(ctx, conn)
	if err != nil {
		return nil, fmt.Errorf("reading the catalog: %w", err)
	}
	return c, nil
}

// EditorSchema is the JSON Schema that editors complete rule files with: of the database, or of a file that Schema was written to.
func EditorSchema(ctx context.Context, config Config, file string) ([]byte, error) {
	catalog, err := func() (*cdc.Catalog, error) {
		if file != "" {
			return ReadSchema(file)
		}
		return Schema(ctx, config)
	}()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(config.Templates)
	if err != nil {
		return nil, refused{fmt.Errorf("reading the templates: %w", err)}
	}
	var names []string
	for _, e := range entries {
		name, _, _ := strings.Cut(e.Name(), ".")
		if strings.HasSuffix(e.Name(), ".html") && name != "" && !strings.HasPrefix(name, "_") {
			names = append(names, name)
		}
	}
	return rules.EditorSchema(catalog, slices.Compact(names)), nil
}
