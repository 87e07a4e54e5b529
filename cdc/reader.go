package cdc

import (
	"bytes"
	"encoding/binary"
	"time"
)

// reader takes a message apart. After the first mistake it gives zeros.
type reader struct {
	b   []byte
	err error
}

// take returns the next n bytes, which alias the message.
func (r *reader) take(n int64) []byte {
	if r.err == nil && (n < 0 || n > int64(len(r.b))) {
		r.err = errShort
	}
	if r.err != nil {
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) expect(kind bool) {
	if r.err == nil && !kind {
		r.err = errKind
	}
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a number of the journal's own form.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 && r.err == nil {
		r.err = errShort
	}
	if r.err != nil {
		return 0
	}
	r.b = r.b[n:]
	return v
}

// cstring returns the bytes up to the next NUL, which it swallows.
func (r *reader) cstring() []byte {
	n := int64(bytes.IndexByte(r.b, 0))
	if n < 0 {
		n = int64(len(r.b))
	}
	s := r.take(n + 1)
	return s[:max(len(s)-1, 0)]
}

// tuple takes a row with the columns of t.
func (r *reader) tuple(t *Table) Tuple {
	if r.err != nil {
		return nil
	}
	size, columns, err := tupleLen(r.b, false)
	switch {
	case err != nil:
		r.err = err
	case columns != len(t.Columns):
		r.err = errColumns
	}
	return r.take(int64(size))
}

// end checks that the message was read, all of it and no more.
func (r *reader) end() error {
	switch {
	case r.err != nil:
		return malformed(r.err)
	case len(r.b) > 0:
		return malformed(errLong)
	}
	return nil
}

// pgTime reads Postgres' time: microseconds since 2000.
func pgTime(micros uint64) time.Time {
	const from1970 = 946_684_800_000_000
	return time.UnixMicro(from1970 + int64(micros)).UTC()
}
