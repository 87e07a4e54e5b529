package rules

import (
	"github.com/jackc/pgx/v5/pgtype"

	"postman/cdc"
	"postman/value"
)

// col is a column of the fixtures' tables.
func col(name string, oid uint32) cdc.Column {
	return cdc.Column{Column: value.Column{Name: name, Type: value.Type{OID: oid, Base: oid, Name: typeNames[oid]}}}
}

// typeNames are names as format_type prints them.
var typeNames = map[uint32]string{
	pgtype.Int4OID: "integer", pgtype.Int8OID: "bigint", pgtype.NumericOID: "numeric", pgtype.Float8OID: "double precision",
	pgtype.TextOID: "text", pgtype.BoolOID: "boolean", pgtype.TimestamptzOID: "timestamp with time zone",
	pgtype.TimestampOID: "timestamp without time zone", pgtype.DateOID: "date", pgtype.UUIDOID: "uuid",
	pgtype.JSONBOID: "jsonb", pgtype.TextArrayOID: "text[]", pgtype.Int4ArrayOID: "integer[]", pgtype.ByteaOID: "bytea", pgtype.InetOID: "inet",
}

func keyed(c cdc.Column) cdc.Column {
	c.Key, c.PK, c.NotNull = true, true, true
	return c
}

// schedules has most types, and REPLICA IDENTITY FULL.
func schedules() *cdc.Table {
	kind := col("kind", pgtype.TextOID)
	kind.Type.Name, kind.Type.OID, kind.Enum = "schedule_kind", 16400, []string{"meeting", "viewing", "call"}
	return &cdc.Table{
		TableName: cdc.TableName{Schema: "public", Name: "schedules"}, OID: 16401, Identity: cdc.IdentityFull,
		Columns: []cdc.Column{
			keyed(col("id", pgtype.Int8OID)), kind, col("status", pgtype.TextOID), col("customer_id", pgtype.Int8OID),
			col("created_by", pgtype.Int4OID), col("starts_at", pgtype.TimestamptzOID), col("local_at", pgtype.TimestampOID),
			col("day", pgtype.DateOID), col("price", pgtype.NumericOID), col("rate", pgtype.Float8OID), col("vacant", pgtype.BoolOID),
			col("note", pgtype.TextOID), col("tags", pgtype.TextArrayOID), col("numbers", pgtype.Int4ArrayOID), col("data", pgtype.JSONBOID),
			col("ref", pgtype.UUIDOID), col("blob", pgtype.ByteaOID), col("ip", pgtype.InetOID),
		},
	}
}

// customers has the default replica identity: its primary key.
func customers() *cdc.Table {
	return &cdc.Table{
		TableName: cdc.TableName{Schema: "public", Name: "customers"}, OID: 16402, Identity: cdc.IdentityDefault,
		Columns: []cdc.Column{
			keyed(col("id", pgtype.Int8OID)), col("email", pgtype.TextOID), col("name", pgtype.TextOID), col("Buyer Id", pgtype.Int4OID),
			col("note", pgtype.TextOID),
		},
	}
}

// visits has no primary key.
func visits() *cdc.Table {
	return &cdc.Table{
		TableName: cdc.TableName{Schema: "shop", Name: "Visits"}, OID: 16403, Identity: cdc.IdentityDefault,
		Columns: []cdc.Column{col("customer_id", pgtype.Int8OID), col("url", pgtype.TextOID)},
	}
}

// months is partitioned by its day.
func months() *cdc.Table {
	kind := col("kind", pgtype.TextOID)
	return &cdc.Table{
		TableName: cdc.TableName{Schema: "public", Name: "parts"}, OID: 16404, Identity: cdc.IdentityDefault, Partitioned: true,
		Columns: []cdc.Column{keyed(col("id", pgtype.Int8OID)), keyed(col("day", pgtype.DateOID)), kind, col("data", pgtype.JSONBOID)},
	}
}

// lying is partitioned as well, and says of itself what its partitions do not do.
func lying() *cdc.Table {
	t := months()
	t.Name, t.OID, t.Identity = "lying", 16405, cdc.IdentityFull
	return t
}

func catalog() *cdc.Catalog {
	c := &cdc.Catalog{
		Tables:       make(map[cdc.TableName]*cdc.Table),
		Unwatchable:  map[cdc.TableName]string{{Schema: "public", Name: "overview"}: "it is a view: watch the tables that it is made of"},
		Unidentified: map[cdc.TableName]string{visits().TableName: `it has no primary key: ALTER TABLE "shop"."Visits" REPLICA IDENTITY FULL;`},
	}
	c.Unidentified[lying().TableName] = `it is partitioned, and partitions do not inherit its REPLICA IDENTITY: old rows would be read wrongly. ALTER TABLE "public"."lying" REPLICA IDENTITY DEFAULT;`
	for _, t := range []*cdc.Table{schedules(), customers(), visits(), months(), lying()} {
		c.Tables[t.TableName] = t
		c.Names = append(c.Names, t.TableName)
	}
	c.Names = append(c.Names, cdc.TableName{Schema: "public", Name: "password_resets"})
	return c
}
