package rules

import "math"

// dictionary numbers the values of a column that rules mention. Each change's value is looked up once, however many branches
// ask for it.
type dictionary struct {
	of     *column
	number int // of the dictionary
	size   uint32
	ints   map[int64]uint32
	nums   map[number]uint32
	texts  map[string]uint32
	bigs   map[string]uint32 // numbers of more digits than number holds, as text
}

// Numbers that every dictionary gives.
const (
	idUnmentioned uint32 = iota
	idNull
	idFirst   // of a value
	idUnknown = math.MaxUint32
)

// number is a scalar's n × 10^exp.
type number struct {
	n   int64
	exp int32
}

func newDictionary(of *column, n int) *dictionary {
	return &dictionary{
		of: of, number: n, size: idFirst,
		ints: make(map[int64]uint32), nums: make(map[number]uint32), texts: make(map[string]uint32), bigs: make(map[string]uint32),
	}
}

// id is the number of a value.
func (d *dictionary) id(v *scalar) uint32 {
	switch v.state {
	case stateText:
		return d.texts[string(v.text)]
	case stateInt:
		return d.ints[v.n]
	case stateNum:
		if v.big != nil {
			return d.bigs[v.mark().text]
		}
		return d.nums[number{v.n, v.exp}]
	case stateNull:
		return idNull
	case stateOdd, stateAbsent:
	}
	return idUnknown
}

// add gives a value a number, if it has none.
func (d *dictionary) add(v *scalar) uint32 {
	if id := d.id(v); id != idUnmentioned {
		return id
	}
	id := d.size
	d.size++
	switch {
	case v.state == stateInt:
		d.ints[v.n] = id
	case v.state == stateText:
		d.texts[string(v.text)] = id
	case v.big != nil:
		d.bigs[v.mark().text] = id
	default:
		d.nums[number{v.n, v.exp}] = id
	}
	return id
}
