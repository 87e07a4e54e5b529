package cdc

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"postman/value"
)

// firstUserOID is the first OID that Postgres gives to what users create (FirstNormalObjectId in its access/transam.h):
// all below it mean the same in every database.
const firstUserOID = 16384

// pgType is a type as pg_type has it, and what is made of that.
type pgType struct {
	value.Type
	enum uint32 // the enum itself, or the one that a domain is over

	kind    string // pg_type.typtype
	domain  uint32 // the type that a domain is over
	element uint32 // of an array
	array   uint32 // the type of arrays of it
}

// loadTypes asks the catalog for types and for those that they are made of. Types that are not there are left out.
func loadTypes(ctx context.Context, conn *pgx.Conn, oids []uint32) (map[uint32]pgType, error) {
	rows, err := conn.Query(ctx, `
		with recursive need (oid) as (
		    select unnest($1::oid[])
		  union
		    select part.oid from need join pg_type t on t.oid = need.oid
		           cross join lateral unnest(array[t.typbasetype, t.typelem]) part (oid)
		     where part.oid <> 0
		)
		select t.oid, format_type(t.oid, null), t.typtype::text, t.typbasetype, t.typarray,
		       case t.typsubscript when 'array_subscript_handler'::regproc then t.typelem else 0 end
		  from need join pg_type t on t.oid = need.oid`, oids)
	if err != nil {
		return nil, err
	}
	types := make(map[uint32]pgType)
	var t pgType
	_, err = pgx.ForEachRow(rows, []any{&t.OID, &t.Name, &t.kind, &t.domain, &t.array, &t.element}, func() error {
		types[t.OID] = t
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("resolving types: %w", err)
	}
	for oid, t := range types {
		t.Base, t.enum = base(types, oid)
		types[oid] = t
	}
	return types, nil
}

// base is the type that a type's text is decoded under, and the enum that it is or is a domain over.
func base(types map[uint32]pgType, oid uint32) (base, enum uint32) {
	t := types[oid]
	for t.kind == "d" {
		t = types[t.domain]
	}
	switch {
	case t.kind == "e":
		return pgtype.TextOID, t.OID
	case t.element == 0:
		return t.OID, 0
	}
	element := types[t.element]
	for element.kind == "d" {
		element = types[element.domain]
	}
	switch {
	case element.kind == "e":
		return pgtype.TextArrayOID, 0
	case element.array == 0: // of a domain over arrays: there is no type of arrays of arrays
		return t.OID, 0
	}
	return element.array, 0
}

// builtin is the type with one of Postgres' own OIDs.
func builtin(oid uint32) value.Type {
	return value.Type{OID: oid, Base: oid, Name: value.TypeName(oid)}
}
