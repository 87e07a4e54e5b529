package cdc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"

	"postman/value"
)

const schemaVersion = 1

// schema is a catalog as a file, for where no database is at hand. OIDs of what users create differ between databases
// and are left out, so that the file changes only when the tables do.
type schema struct {
	Version     int               `json:"postman_schema"`
	Tables      []schemaTable     `json:"tables"`
	Unwatchable []schemaUnwatched `json:"unwatchable"`
}

type schemaTable struct {
	Schema       string         `json:"schema"`
	Name         string         `json:"name"`
	Identity     string         `json:"replica_identity"`
	Partitioned  bool           `json:"partitioned,omitempty"`
	Unidentified string         `json:"unidentified,omitempty"` // why its updates and deletes must not be published
	Columns      []schemaColumn `json:"columns"`
}

type schemaColumn struct {
	Name    string   `json:"name"`
	Type    string   `json:"type"`
	Base    uint32   `json:"base,omitempty"` // the OID of the built-in type that its text is read as; 0: it stays text
	NotNull bool     `json:"not_null,omitempty"`
	PK      bool     `json:"primary_key,omitempty"`
	Key     bool     `json:"identity,omitempty"` // belongs to the replica identity
	Enum    []string `json:"enum,omitempty"`
}

type schemaUnwatched struct {
	Schema string `json:"schema"`
	Name   string `json:"name"`
	Why    string `json:"why"`
}

// identityNames are the replica identities in the words of ALTER TABLE.
var identityNames = map[Identity]string{
	IdentityDefault: "default", IdentityFull: "full", IdentityIndex: "index", IdentityNothing: "nothing",
}

// LoadSchema reads the catalog of all tables of the database, and of what looks like one.
func LoadSchema(ctx context.Context, conn *pgx.Conn) (*Catalog, error) {
	rows, err := conn.Query(ctx, `
		select n.nspname, c.relname
		  from pg_class c join pg_namespace n on n.oid = c.relnamespace
		 where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
		   and n.nspname not like 'pg\_%' and n.nspname not in ('information_schema', 'postman')`)
	if err != nil {
		return nil, fmt.Errorf("listing the tables: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowToStructByPos[TableName])
	if err != nil {
		return nil, fmt.Errorf("listing the tables: %w", err)
	}
	return LoadCatalog(ctx, conn, names)
}

// Schema is the catalog as JSON, a column on each line: equal catalogs have equal schemas. [ParseSchema] reads it.
func (c *Catalog) Schema() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "{\n  \"postman_schema\": %d,\n  \"tables\": [", schemaVersion)
	for i, name := range slices.SortedFunc(maps.Keys(c.Tables), compareNames) {
		t := c.Tables[name]
		writeItem(&b, i, "    ", schemaTable{name.Schema, name.Name, identityNames[t.Identity], t.Partitioned, c.Unidentified[name], nil})
		b.Truncate(b.Len() - len("null}")) // the columns follow, each on a line
		b.WriteByte('[')
		for j, col := range t.Columns {
			writeItem(&b, j, "      ", schemaColumn{col.Name, col.Type.Name, builtinOID(col.Type.Base), col.NotNull, col.PK, col.Key, col.Enum})
		}
		b.WriteString("\n    ]}")
	}
	b.WriteString("\n  ],\n  \"unwatchable\": [")
	for i, name := range slices.SortedFunc(maps.Keys(c.Unwatchable), compareNames) {
		writeItem(&b, i, "    ", schemaUnwatched{name.Schema, name.Name, c.Unwatchable[name]})
	}
	b.WriteString("\n  ]\n}\n")
	return b.Bytes()
}

// writeItem writes the i-th item of a list, on a line of its own.
func writeItem(b *bytes.Buffer, i int, indent string, v any) {
	if i > 0 {
		b.WriteByte(',')
	}
	b.WriteString("\n" + indent)
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil { // strings, numbers and booleans always marshal
		panic(err)
	}
	b.Truncate(b.Len() - len("\n"))
}

func compareNames(a, b TableName) int {
	return cmp.Or(cmp.Compare(a.Schema, b.Schema), cmp.Compare(a.Name, b.Name))
}

// builtinOID is an OID that means the same in every database, or 0.
func builtinOID(oid uint32) uint32 {
	if oid >= firstUserOID {
		return 0
	}
	return oid
}

// ParseSchema reads what [Catalog.Schema] wrote. Its tables and types have no OIDs: it serves to check rules, not to run them.
func ParseSchema(b []byte) (*Catalog, error) {
	var version struct {
		Version int `json:"postman_schema"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	if version.Version != schemaVersion {
		return nil, fmt.Errorf("reading the schema: it says \"postman_schema\": %d, and this postman reads %d; write it anew: postman schema > schema.json",
			version.Version, schemaVersion)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var s schema
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	c := &Catalog{
		Tables: make(map[TableName]*Table), Unwatchable: make(map[TableName]string), Unidentified: make(map[TableName]string),
	}
	for i := range s.Tables {
		if err := c.add(&s.Tables[i]); err != nil {
			return nil, fmt.Errorf("reading the schema: table %s: %w", TableName{s.Tables[i].Schema, s.Tables[i].Name}, err)
		}
	}
	for _, u := range s.Unwatchable {
		c.Unwatchable[TableName{u.Schema, u.Name}] = cmp.Or(u.Why, "it cannot be watched")
	}
	c.Names = slices.SortedFunc(maps.Keys(c.Tables), compareNames)
	return c, nil
}

// add takes in a table of a schema.
func (c *Catalog) add(s *schemaTable) error {
	t := &Table{TableName: TableName{s.Schema, s.Name}, Partitioned: s.Partitioned}
	if s.Schema == "" || s.Name == "" {
		return errors.New("a schema and a name are needed")
	}
	if _, again := c.Tables[t.TableName]; again {
		return errors.New("it is there twice")
	}
	for id, name := range identityNames {
		if name == s.Identity {
			t.Identity = id
		}
	}
	if t.Identity == 0 {
		return fmt.Errorf("%q is no replica identity", s.Identity)
	}
	for _, col := range s.Columns {
		switch {
		case col.Name == "":
			return errors.New("a column has no name")
		case t.Column(col.Name) >= 0:
			return fmt.Errorf("column %s is there twice", col.Name)
		case col.Base >= firstUserOID:
			return fmt.Errorf("column %s: %d is the OID of no built-in type", col.Name, col.Base)
		}
		t.Columns = append(t.Columns, Column{
			Column: value.Column{Name: col.Name, Type: value.Type{Base: col.Base, Name: col.Type}},
			Key:    col.Key, PK: col.PK, NotNull: col.NotNull, Enum: col.Enum,
		})
	}
	c.Tables[t.TableName] = t
	if s.Unidentified != "" {
		c.Unidentified[t.TableName] = s.Unidentified
	}
	return nil
}
