// Package crm is the example CRM of a property broker in Seoul: the schema and data that the example rules are written for.
// It holds SQL and nothing else; README.md describes it.
package crm

import _ "embed"

// Schema makes the tables, in an empty database. Postgres 14 and later.
//
//go:embed schema.sql
var Schema string

// Data fills them.
//
//go:embed data.sql
var Data string
