package cdc

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"postman/value"
)

// table with n columns, c0 and so on.
func wide(n int) *Table {
	t := &Table{TableName: TableName{"public", "t"}, OID: 7, Identity: IdentityDefault}
	for i := range n {
		t.Columns = append(t.Columns, Column{Column: value.Column{Name: fmt.Sprint("c", i)}})
	}
	return t
}

func anyTuple(t *rapid.T, n int, states []value.State) Tuple {
	datums := make([]value.Datum, n)
	for i := range datums {
		datums[i].State = rapid.SampledFrom(states).Draw(t, "state")
		if datums[i].State == value.Present {
			datums[i].Text = rapid.SliceOf(rapid.Byte()).Draw(t, "text")
		}
	}
	return MakeTuple(datums)
}

func anyChange(t *rapid.T, table *Table, ops []Op, states ...value.State) *Change {
	c := &Change{Op: rapid.SampledFrom(ops).Draw(t, "op"), Table: table}
	switch c.Op {
	case Emit:
		return &Change{Op: Emit, Prefix: rapid.String().Draw(t, "prefix"), Content: rapid.SliceOf(rapid.Byte()).Draw(t, "content")}
	case Insert:
		c.New = anyTuple(t, len(table.Columns), states)
	case Update:
		c.New = anyTuple(t, len(table.Columns), states)
		if rapid.Bool().Draw(t, "has old") {
			c.Old, c.OldKey = anyTuple(t, len(table.Columns), states), rapid.Bool().Draw(t, "key")
		}
	case Delete:
		c.Old, c.OldKey = anyTuple(t, len(table.Columns), states), rapid.Bool().Draw(t, "key")
	case Truncate:
	}
	return c
}

func equal(a, b *Change) bool {
	return a.Op == b.Op && a.Table == b.Table && a.OldKey == b.OldKey && a.Prefix == b.Prefix &&
		bytes.Equal(a.Content, b.Content) && bytes.Equal(a.New, b.New) && bytes.Equal(a.Old, b.Old)
}

func TestRestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := wide(rapid.IntRange(0, 5).Draw(t, "columns"))
		c := anyChange(t, table, []Op{Insert, Update, Delete, Truncate, Emit}, value.Null, value.Present, value.Unavailable, value.Blanked)
		before := []byte("before")
		b := c.AppendRest(before, nil)
		got, err := ParseRest(b[len(before):], c.Table)
		if err != nil {
			t.Fatal(err)
		}
		if !equal(c, got) || !bytes.HasPrefix(b, before) {
			t.Fatalf("%+v came back as %+v", c, got)
		}
	})
}

// TestBlank compares with a naive blanking of the decoded rows.
func TestBlank(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		table := wide(rapid.IntRange(0, 5).Draw(t, "columns"))
		c := anyChange(t, table, []Op{Insert, Update, Delete, Truncate}, value.Null, value.Present, value.Unavailable)
		secret := rapid.SliceOf(rapid.SampledFrom([]string{"c0", "c2", "c4"})).Draw(t, "secret")
		got, err := ParseRest(c.AppendRest(nil, func(column string) bool { return slices.Contains(secret, column) }), table)
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]Tuple{{c.New, got.New}, {c.Old, got.Old}} {
			before, err1 := pair[0].Datums(nil)
			after, err2 := pair[1].Datums(nil)
			if err1 != nil || err2 != nil || len(before) != len(after) {
				t.Fatal(before, after, err1, err2)
			}
			for i := range before {
				if slices.Contains(secret, table.Columns[i].Name) && before[i].State == value.Present {
					before[i] = value.Datum{State: value.Blanked}
				}
				if before[i].State != after[i].State || !bytes.Equal(before[i].Text, after[i].Text) {
					t.Fatalf("column %d: %+v; want %+v", i, after[i], before[i])
				}
			}
		}
	})
}

func TestBlankMessage(t *testing.T) {
	t.Parallel()
	secret := func(key string) bool { return key == "token" }
	for content, want := range map[string]string{
		`{"token": "s3cret", "email": "a@b", "n": 1.10}`: `{"email":"a@b","n":1.10}`,
		`{"inner": {"token": "seen"}}`:                   `{"inner":{"token":"seen"}}`,
		`{"token": 1}`:                                   `{}`,
		`"s3cret"`:                                       ``,
		`null`:                                           ``,
		`{"token": "s3cret"`:                             ``,
		``:                                               ``,
	} {
		c := &Change{Op: Emit, Prefix: "postman.x", Content: []byte(content)}
		got, err := ParseRest(c.AppendRest(nil, secret), nil)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Content) != want || got.Prefix != c.Prefix {
			t.Errorf("%s was kept as %s; want %s", content, got.Content, want)
		}
		if whole, _ := ParseRest(c.AppendRest(nil, nil), nil); string(whole.Content) != content {
			t.Errorf("%s was kept as %s with nothing to blank", content, whole.Content)
		}
	}
}

func TestParseRestRefuses(t *testing.T) {
	t.Parallel()
	table := wide(1)
	insert := (&Change{Op: Insert, Table: table, New: MakeTuple([]value.Datum{value.Of("x")})}).AppendRest(nil, nil)
	message := (&Change{Op: Emit, Prefix: "p"}).AppendRest(nil, nil)
	for name, c := range map[string]struct {
		b     []byte
		table *Table
	}{
		"empty":               {nil, table},
		"cut":                 {insert[:len(insert)-1], table},
		"too long":            {append(slices.Clone(insert), 0), table},
		"a later version":     {append([]byte{2}, insert[1:]...), table},
		"unknown operation":   {append([]byte{1, 9}, insert[2:]...), table},
		"unknown flag":        {append([]byte{1, 0, 64}, insert[3:]...), table},
		"no table":            {insert, nil},
		"another table":       {insert, wide(2)},
		"a message's table":   {message, table},
		"a message's prefix":  {[]byte{1, byte(Emit), 0, 5, 'p'}, nil},
		"a message with rows": {[]byte{1, byte(Emit), restNew, 0}, nil},
		"a bad length":        {[]byte{1, byte(Emit), 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1}, nil},
	} {
		if got, err := ParseRest(c.b, c.table); err == nil {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

// A change that could not be read when it came is read by the version that can, as if it had come then.
func TestRestUnread(t *testing.T) {
	t.Parallel()
	table := wide(2)
	row := MakeTuple([]value.Datum{value.Of("x"), {}})
	raw := append([]byte("I\x00\x00\x00\x07N"), row...)
	broken := &Change{Op: Insert, Table: table, Err: errShort, Raw: raw}
	got, err := ParseRest(broken.AppendRest(nil, nil), table)
	if want := (&Change{Op: Insert, Table: table, New: row}); err != nil || !equal(want, got) {
		t.Errorf("%+v, %v", got, err)
	}
	for name, c := range map[string]struct {
		b     []byte
		table *Table
		want  string
	}{
		"still broken":     {(&Change{Op: Insert, Err: errShort, Raw: raw[:len(raw)-1]}).AppendRest(nil, nil), table, "still cannot"},
		"blanked":          {broken.AppendRest(nil, func(string) bool { return false }), table, "was blanked"},
		"of another table": {broken.AppendRest(nil, nil), nil, "not described"},
		"no change":        {(&Change{Op: Insert, Err: errShort, Raw: []byte("C")}).AppendRest(nil, nil), table, "no change of one row"},
	} {
		if got, err := ParseRest(c.b, c.table); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzParseRest(f *testing.F) {
	table := wide(2)
	row := MakeTuple([]value.Datum{value.Of("x"), {}})
	for _, c := range []*Change{
		{Op: Insert, Table: table, New: row},
		{Op: Update, Table: table, New: row, Old: row, OldKey: true},
		{Op: Truncate, Table: table},
		{Op: Emit, Prefix: "p", Content: []byte("{}")},
		{Op: Insert, Table: table, Err: errShort, Raw: append([]byte("I\x00\x00\x00\x07N"), row...)},
	} {
		f.Add(c.AppendRest(nil, nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, table := range []*Table{table, nil} {
			c, err := ParseRest(b, table)
			if err != nil {
				continue
			}
			again, err := ParseRest(c.AppendRest(nil, nil), table)
			if err != nil || !equal(c, again) {
				t.Fatalf("%+v came back as %+v, %v", c, again, err)
			}
			c.AppendRest(nil, func(string) bool { return true })
		}
	})
}

func FuzzTuple(f *testing.F) {
	f.Add([]byte(MakeTuple([]value.Datum{value.Of("text"), {}, {State: value.Unavailable}, {State: value.Blanked}})))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, columns, err := tupleLen(b, true)
		datums, datumsErr := Tuple(b).Datums(nil)
		if len(b) > 0 && (err == nil) != (datumsErr == nil) {
			t.Fatalf("tupleLen says %v, Datums %v", err, datumsErr)
		}
		if err != nil {
			return
		}
		if len(datums) != columns || !bytes.Equal(MakeTuple(datums), b[:size]) {
			t.Fatalf("%q came back as %q", b[:size], MakeTuple(datums))
		}
		if _, _, err := tupleLen(b, false); (err == nil) == slices.ContainsFunc(datums, func(d value.Datum) bool { return d.State == value.Blanked }) {
			t.Fatalf("a blanked value in the stream: %v", err)
		}
	})
}

func TestShapeRoundTrip(t *testing.T) {
	t.Parallel()
	text := rapid.String()
	rapid.Check(t, func(t *rapid.T) {
		table := &Table{
			TableName: TableName{text.Draw(t, "schema"), text.Draw(t, "name")}, OID: rapid.Uint32().Draw(t, "oid"),
			Identity: rapid.SampledFrom([]Identity{IdentityDefault, IdentityFull, IdentityIndex, IdentityNothing}).Draw(t, "identity"),
			Columns:  []Column{},
		}
		for range rapid.IntRange(0, 4).Draw(t, "columns") {
			table.Columns = append(table.Columns, Column{
				Column: value.Column{Name: text.Draw(t, "column"), Type: value.Type{OID: rapid.Uint32().Draw(t, "type"), Base: rapid.Uint32().Draw(t, "base"), Name: text.Draw(t, "type name")}},
				Key:    rapid.Bool().Draw(t, "key"), PK: rapid.Bool().Draw(t, "pk"), NotNull: rapid.Bool().Draw(t, "not null"),
				Enum: rapid.SampledFrom([][]string{nil, {"sad", "ok"}}).Draw(t, "enum"),
			})
		}
		got, err := ParseShape(table.Shape())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(table, got); diff != "" {
			t.Fatal(diff)
		}
		if !bytes.Equal(got.Shape(), table.Shape()) {
			t.Fatal("equal tables have different shapes")
		}
	})
}

func FuzzParseShape(f *testing.F) {
	f.Add(wide(2).Shape())
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ParseShape(b)
		if err != nil {
			return
		}
		again, err := ParseShape(table.Shape())
		if err != nil || !bytes.Equal(again.Shape(), table.Shape()) {
			t.Fatalf("%s came back as %s, %v", table.Shape(), again.Shape(), err)
		}
	})
}

func TestParseShapeRefuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{``, `{}`, `{"v":2,"identity":"d"}`, `{"v":1,"identity":"dd"}`, `{"v":1,"identity":"z"}`, `{"v":1,"identity":"d","more":1}`, string(wide(1).Shape()) + `{}`} {
		if got, err := ParseShape([]byte(s)); err == nil {
			t.Errorf("%s was read as %+v", s, got)
		}
	}
}
