package cdc

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/klauspost/compress/zstd"

	"postman/position"
)

// The journal at rest. A block is a zstd frame (RFC 8878) of
//
//	Byte1    1, the version of this form
//	Section… each a transaction, or a part of one that is too large for a block
//
// so that blocks are joined by joining their sections. A section is
//
//	Uvarint  length of all that follows
//	Byte1    flags: 1 = a part of a transaction, whose envelope is kept beside the block
//	Uvarint  transaction id
//	Int64    LSN of the commit record, Int64 its end, Int64 the commit's time in microseconds since 1970
//	Uvarint  length, Byten: why the transaction was muted; empty: it was not
//	Uvarint  ordinal of the first change
//	Uvarint  number of changes
//	Change…
//
// and a change is
//
//	Uvarint  0: a message; n: a row of the section's n-th table, in the order of their first changes
//	Byte32   hash of the table's shape, when n is new in the section
//	Uvarint  length, Byten: the change, see [Change.AppendRest]. Length 0: none, and not counted; this is how the table looks from here on
//
// Shapes are kept beside the journal, by their hashes: a block needs neither the catalog nor the block before it.
const journalVersion = 1

const sectionPart = 1

// Section gathers the changes of one transaction for the journal. The zero Section is empty and may be used again after Reset.
type Section struct {
	body   []byte
	tables []*Table
	first  uint64
	n      int
}

// Reset empties the section; the next change is the transaction's number first.
func (s *Section) Reset(first uint64) {
	s.body, s.tables, s.first, s.n = s.body[:0], s.tables[:0], first, 0
}

// Add appends a change, without the values of columns, or the keys of a message, that blank names (nil: with all). Shape gives
// the hash of a table's [Table.Shape], and is asked for each table once.
func (s *Section) Add(c *Change, shape func(*Table) [32]byte, blank func(string) bool) {
	for _, t := range c.Described {
		s.table(t, shape)
		s.body = append(s.body, 0)
	}
	s.n++
	s.table(c.Table, shape)
	// The length is not known before: room is left for the longest that usual rows have, and moved where that does not suffice.
	at := len(s.body)
	s.body = append(s.body, 0, 0)
	s.body = c.AppendRest(s.body, blank)
	length := len(s.body) - at - 2
	if length < 1<<14 {
		s.body[at], s.body[at+1] = byte(length)|0x80, byte(length>>7)
		return
	}
	var size [binary.MaxVarintLen64]byte
	s.body = slices.Replace(s.body, at, at+2, size[:binary.PutUvarint(size[:], uint64(length))]...)
}

func (s *Section) table(t *Table, shape func(*Table) [32]byte) {
	if t == nil {
		s.body = append(s.body, 0)
		return
	}
	if i := slices.Index(s.tables, t); i >= 0 {
		s.body = binary.AppendUvarint(s.body, uint64(i+1))
		return
	}
	s.tables = append(s.tables, t)
	s.body = binary.AppendUvarint(s.body, uint64(len(s.tables)))
	hash := shape(t)
	s.body = append(s.body, hash[:]...)
}

// Len is the section's length in bytes, or nearly so.
func (s *Section) Len() int { return len(s.body) }

// Changes is how many it has.
func (s *Section) Changes() int { return s.n }

// First is the ordinal of the first of them.
func (s *Section) First() uint64 { return s.first }

// Tables are those of its changes, in the order of their first ones.
func (s *Section) Tables() []*Table { return s.tables }

// Cut takes the changes from an ordinal on back.
func (s *Section) Cut(from uint64) {
	keep := int(max(from, s.first) - s.first)
	if keep >= s.n {
		return
	}
	r, tables := reader{b: s.body}, 0
	for i := 0; i < keep; {
		if n := int(r.uvarint()); n > tables {
			tables = n
			r.take(32)
		}
		length := r.uvarint()
		if r.take(int64(length)); length > 0 {
			i++
		}
	}
	s.body, s.tables, s.n = s.body[:len(s.body)-len(r.b)], s.tables[:tables], keep
}

// AppendBlock appends a section to a block that is not sealed yet; an empty one begins anew. An envelope without a commit makes it a
// part of a transaction whose commit was not read.
func AppendBlock(block []byte, tx Tx, muted string, s *Section) []byte {
	if len(block) == 0 {
		block = append(block, journalVersion)
	}
	var flags byte
	if tx.Commit == 0 {
		flags |= sectionPart
	}
	var micros int64
	if !tx.Time.IsZero() {
		micros = tx.Time.UnixMicro()
	}
	head := make([]byte, 0, 64+len(muted))
	head = append(head, flags)
	head = binary.AppendUvarint(head, uint64(tx.XID))
	head = binary.BigEndian.AppendUint64(head, uint64(tx.Commit))
	head = binary.BigEndian.AppendUint64(head, uint64(tx.End))
	head = binary.BigEndian.AppendUint64(head, uint64(micros))
	head = binary.AppendUvarint(head, uint64(len(muted)))
	head = append(head, muted...)
	head = binary.AppendUvarint(head, s.first)
	head = binary.AppendUvarint(head, uint64(s.n))
	block = binary.AppendUvarint(block, uint64(len(head)+len(s.body)))
	return append(append(block, head...), s.body...)
}

// JoinBlocks appends the sections of one unsealed block to another.
func JoinBlocks(block, more []byte) []byte {
	if len(block) == 0 {
		return append(block, more...)
	}
	return append(block, more[min(1, len(more)):]...)
}

// mostBlock bounds what a block may unpack to, so that a damaged one cannot take all memory. A row may be a gigabyte long.
const mostBlock = 3 << 30

// One coder each serves all: their methods keep no state between calls. A window of a megabyte covers a block.
var (
	packer   = must(zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)))
	unpacker = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(mostBlock), zstd.WithDecoderLowmem(true)))
)

func must[T any](coder T, err error) T {
	if err != nil { // the options above are constants
		panic(err)
	}
	return coder
}

// SealBlock compresses a block, for the store.
func SealBlock(block []byte) []byte { return packer.EncodeAll(block, nil) }

// UnsealBlock is what SealBlock was given, in the memory of dst where that suffices.
func UnsealBlock(dst, sealed []byte) ([]byte, error) {
	block, err := unpacker.DecodeAll(sealed, dst[:0])
	if err != nil {
		return nil, fmt.Errorf("unpacking a block of the journal: %w", err)
	}
	return block, nil
}

var errJournal = errors.New("a malformed block of the journal")

// Recorded is a section as it is read.
type Recorded struct {
	Tx
	Muted string
	Part  bool   // of a transaction whose envelope is kept beside the block: Tx has its XID only
	First uint64 // ordinal of the first change
	N     int    // how many there are
	// Rest is shared by the sections of one transaction, which are read in their order; nil: this is all of it.
	Rest *Rest
	body []byte
}

// Sections reads an unsealed block. After an error there is nothing more.
func Sections(block []byte) iter.Seq2[Recorded, error] {
	return func(yield func(Recorded, error) bool) {
		switch {
		case len(block) == 0:
			yield(Recorded{}, errJournal)
			return
		case block[0] != journalVersion:
			yield(Recorded{}, fmt.Errorf("a block of the journal: version %d is not known to this postman", block[0]))
			return
		}
		for r := (reader{b: block[1:]}); len(r.b) > 0; {
			s, err := section(reader{b: r.take(int64(r.uvarint()))})
			if r.err != nil || err != nil {
				yield(Recorded{}, errJournal)
				return
			}
			if !yield(s, nil) {
				return
			}
		}
	}
}

func section(r reader) (s Recorded, err error) {
	s.Part = r.u8()&sectionPart != 0
	s.XID = uint32(r.uvarint())
	s.Commit, s.End = position.LSN(r.u64()), position.LSN(r.u64())
	if micros := int64(r.u64()); micros != 0 {
		s.Time = time.UnixMicro(micros).UTC()
	}
	s.Muted = string(r.take(int64(r.uvarint())))
	s.First, s.N = r.uvarint(), int(r.uvarint())
	s.body = r.b
	return s, r.err
}

// Changes reads the section's changes. One Change is used for all of them, and aliases the block. Table gives the table of a
// shape; its error ends the reading. A change that could not be read when it came, and still cannot, has Err.
func (s *Recorded) Changes(ctx context.Context, table func(shape [32]byte) (*Table, error)) iter.Seq2[*Change, error] {
	return func(yield func(*Change, error) bool) {
		var (
			c      Change
			tables []*Table
			r      = reader{b: s.body}
			rest   = cmp.Or(s.Rest, new(Rest))
		)
		if s.First == 0 {
			*rest = Rest{}
		}
		for i := 0; i < s.N; {
			var t *Table
			n := int(r.uvarint())
			if n == len(tables)+1 {
				var hash [32]byte
				copy(hash[:], r.take(32))
				t, err := known(&r, hash, table)
				if err != nil {
					yield(nil, err)
					return
				}
				tables = append(tables, t)
			}
			b := r.take(int64(r.uvarint()))
			if r.err != nil || n < 0 || n > len(tables) {
				yield(nil, errJournal)
				return
			}
			if n > 0 {
				t = tables[n-1]
			}
			if len(b) == 0 && t != nil {
				rest.describe(t)
				continue
			}
			ordinal := s.First + uint64(i)
			i++
			if rest.has(b, t) {
				if !rest.read(ctx, b, ordinal, yield) {
					return
				}
				continue
			}
			if err := c.parseRest(b, t); err != nil {
				yield(nil, fmt.Errorf("change %d of the transaction at %s in the journal: %w", ordinal, s.Commit, err))
				return
			}
			if c.Ordinal = ordinal; !yield(&c, nil) {
				return
			}
		}
	}
}

// known asks for the table of a shape that was read whole.
func known(r *reader, hash [32]byte, table func([32]byte) (*Table, error)) (*Table, error) {
	if r.err != nil {
		return nil, errJournal
	}
	return table(hash)
}
