package rules

import (
	"testing"

	"postman/cdc"
	"postman/value"
)

// scalarOf is a column's value as a frame makes it.
func scalarOf(d domain, text string) (scalar, any, error) {
	t := &cdc.Table{Columns: []cdc.Column{col("c", d.oid)}}
	c := &column{form: formOf(columnType(&t.Columns[0]), d.oid), base: d.oid, absent: new(absent)}
	f := newFrame(t)
	f.begin(testTx, &cdc.Change{Op: cdc.Insert, Table: t, New: row{"c": text}.tuple(t)})
	s := *f.scalar(c)
	v, err := value.Decode(d.oid, value.Of(text))
	return s, v, err
}

// TestScalars holds that scalars are equal and ordered just as the values are that they stand for.
func TestScalars(t *testing.T) {
	t.Parallel()
	compared := 0
	for _, d := range domains {
		for _, x := range d.texts {
			for _, y := range d.texts {
				a, v, err1 := scalarOf(d, x)
				b, w, err2 := scalarOf(d, y)
				if a.state != stateOdd && (a.state == stateAbsent) != (err1 != nil) {
					t.Errorf("%q of type %d: %+v, %v", x, d.oid, a, err1)
				}
				if a.state == stateOdd || b.state == stateOdd || err1 != nil || err2 != nil {
					continue
				}
				compared++
				order, ok := value.Compare(v, w)
				if value.Equal(v, w) != (a.state == b.state && a.equal(&b)) || value.Equal(v, w) != (a.mark() == b.mark()) || ok && a.compare(&b) != order {
					t.Errorf("%q and %q of type %d: %+v, %+v; %d, and as values %d %v", x, y, d.oid, a, b, a.compare(&b), order, ok)
				}
			}
		}
	}
	if compared < 500 {
		t.Errorf("only %d pairs were compared", compared)
	}
}

// FuzzScalar holds that what the quick way reads, package value reads too, and as the same.
func FuzzScalar(f *testing.F) {
	for _, d := range domains {
		for _, text := range d.texts {
			f.Add(d.oid, text)
		}
	}
	f.Fuzz(func(t *testing.T, oid uint32, text string) {
		c := col("c", oid)
		var quick, slow scalar
		form := formOf(columnType(&c), oid)
		if !quick.read(form, []byte(text)) {
			return
		}
		v, err := value.Decode(oid, value.Of(text))
		if err != nil || !slow.set(form, v) || quick.state != slow.state || !quick.equal(&slow) {
			t.Errorf("%q of type %d: %+v, and as a value %v, %v", text, oid, quick, v, err)
		}
	})
}
