package rules

import (
	"crypto/sha256"
	"iter"

	"github.com/klauspost/compress/s2"
)

// Version names what a rule says: the SHA-256 of its [Rule.Source].
type Version [sha256.Size]byte

// Version is the rule's version, by which a match finds the rule that it was made with.
func (r *Rule) Version() Version { return r.version }

// Source is the rule's own YAML, with what it takes from its file's top (sensitive): Revive reads it again. It is unpacked at each call;
// see [Sources].
func (r *Rule) Source() []byte {
	for _, text := range Sources([]*Rule{r}) {
		return text
	}
	return nil
}

// Sources are the sources of rules. Each is only good until the next.
func Sources(list []*Rule) iter.Seq2[*Rule, []byte] {
	return func(yield func(*Rule, []byte) bool) {
		var block string
		var texts []byte
		for _, r := range list {
			if r.block != block {
				block, texts = r.block, unpack(texts, r.block)
			}
			if !yield(r, r.veiled(texts[r.from:r.to:r.to])) {
				return
			}
		}
	}
}

// veiled is the rule's text with what is sensitive of it.
func (r *Rule) veiled(text []byte) []byte {
	if names := r.sensitiveEntries(); names != nil && len(text) > 0 {
		return append(section("sensitive", names), text...)
	}
	return text
}

// settleVersion names the version again, once it is known what is sensitive of the rule.
func (r *Rule) settleVersion() {
	if len(r.Sensitive)+len(r.Reads) > 0 {
		r.version = sha256.Sum256(r.Source())
	}
}

// packed is a text among those of other rules. They are wanted when a rule fires for the first time, and ten thousand are some
// megabytes: a few dozen are kept compressed together.
type packed struct {
	block    string // in the S2 format, of all of them
	from, to int32
}

// pack keeps the texts of rules, which end where ends says.
func pack(rules []*Rule, texts []byte, ends []int) {
	block, from := string(s2.EncodeBetter(nil, texts)), 0
	for i, r := range rules {
		r.version = sha256.Sum256(texts[from:ends[i]])
		r.packed = packed{block, int32(from), int32(ends[i])}
		from = ends[i]
	}
}

func unpack(dst []byte, block string) []byte {
	texts, err := s2.Decode(dst[:cap(dst)], []byte(block))
	if err != nil { // it has not left this process since it was packed
		panic(err)
	}
	return texts
}
