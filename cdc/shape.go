package cdc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"postman/value"
)

const shapeVersion = 1

// shape is a table's form at rest.
type shape struct {
	Version  int           `json:"v"`
	Schema   string        `json:"schema"`
	Name     string        `json:"name"`
	OID      uint32        `json:"oid"`
	Identity string        `json:"identity"`
	Columns  []shapeColumn `json:"columns"`
}

type shapeColumn struct {
	value.Column
	Key     bool     `json:"key,omitzero"`
	PK      bool     `json:"pk,omitzero"`
	NotNull bool     `json:"not_null,omitzero"`
	Enum    []string `json:"enum,omitempty"`
}

// Shape is the table as JSON, at rest in the store: equal tables have equal shapes. [ParseShape] reads it.
func (t *Table) Shape() []byte {
	s := shape{
		Version: shapeVersion, Schema: t.Schema, Name: t.Name, OID: t.OID, Identity: string(t.Identity),
		Columns: make([]shapeColumn, len(t.Columns)),
	}
	for i, c := range t.Columns {
		s.Columns[i] = shapeColumn(c)
	}
	b, err := json.Marshal(s)
	if err != nil { // strings, numbers and booleans always marshal
		panic(err)
	}
	return b
}

// ParseShape reads what [Table.Shape] wrote.
func ParseShape(b []byte) (*Table, error) {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	var s shape
	if err := dec.Decode(&s); err != nil {
		return nil, fmt.Errorf("reading a table's shape: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("reading a table's shape: something follows it")
	}
	if s.Version != shapeVersion {
		return nil, fmt.Errorf("reading a table's shape: version %d is not known to this postman", s.Version)
	}
	identity, err := parseIdentity(s.Identity)
	if err != nil {
		return nil, fmt.Errorf("reading the shape of %s: %w", TableName{s.Schema, s.Name}, err)
	}
	t := &Table{
		TableName: TableName{s.Schema, s.Name}, OID: s.OID, Identity: identity,
		Columns: make([]Column, len(s.Columns)),
	}
	for i, c := range s.Columns {
		t.Columns[i] = Column(c)
	}
	return t, nil
}

func parseIdentity(s string) (Identity, error) {
	if len(s) == 1 {
		switch id := Identity(s[0]); id {
		case IdentityDefault, IdentityFull, IdentityIndex, IdentityNothing:
			return id, nil
		}
	}
	return 0, fmt.Errorf("%q is no replica identity", s)
}
