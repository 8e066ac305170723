// Package receipts remembers which requests have had their effect, in bytes that are committed with
// the state.
package receipts

import (
	"encoding/binary"
	"errors"
)

/*
The section of receipts is one after the other, the oldest first. Numbers are unsigned varints:

	length of the key, key
	digest of the request, 16 bytes
	sequence number of the commit
	length of the effect, effect

A receipt is appended. When there are twice as many as are kept, or twice as many bytes, the section
is written anew with the newest ones: so a receipt costs the same, however many there are.
*/
const (
	// MostKept and MostBytes are how many of the newest receipts are kept at least, as long as both
	// allow it.
	MostKept  = 1024
	MostBytes = 1 << 20

	// MostKey is the length of the longest key, in bytes.
	MostKey = 256

	digestLength = 16
)

// Digest tells one request from another.
type Digest [digestLength]byte

// Receipt is what is known of a request that has had its effect.
type Receipt struct {
	Key    string
	Digest Digest
	Seq    uint64
	Effect []byte
}

// size is how many bytes the receipt takes, about.
func (r *Receipt) size() int { return len(r.Key) + len(r.Effect) + digestLength + 16 }

// Fits tells whether there is room for a receipt at all.
func Fits(key string, effect []byte) bool {
	return (&Receipt{Key: key, Effect: effect}).size() <= MostBytes && len(key) <= MostKey
}

// Table is the receipts of a state as of its last commit.
type Table struct {
	all   []Receipt
	byKey map[string]int // to all
	bytes int
	next  *Receipt // planned
	whole int      // if positive: how many of all are left out
}

// ErrMalformed: the bytes are no receipts.
var ErrMalformed = errors.New("malformed receipts")

// Load reads the section. It keeps parts of b.
func Load(b []byte) (*Table, error) {
	t := &Table{byKey: make(map[string]int)}
	for len(b) > 0 {
		var r Receipt
		key, rest, ok := cut(b)
		if !ok || len(rest) < digestLength {
			return nil, ErrMalformed
		}
		r.Key = string(key)
		copy(r.Digest[:], rest)
		rest = rest[digestLength:]
		seq, n := binary.Uvarint(rest)
		if n <= 0 {
			return nil, ErrMalformed
		}
		r.Seq = seq
		if r.Effect, b, ok = cut(rest[n:]); !ok {
			return nil, ErrMalformed
		}
		t.add(r)
	}
	return t, nil
}

func cut(b []byte) (piece, rest []byte, ok bool) {
	length, n := binary.Uvarint(b)
	if n <= 0 || length > uint64(len(b)-n) {
		return nil, nil, false
	}
	end := n + int(length)
	return b[n:end:end], b[end:], true
}

func (t *Table) add(r Receipt) {
	t.byKey[r.Key] = len(t.all)
	t.all = append(t.all, r)
	t.bytes += r.size()
}

// Find looks for the receipt of a key.
func (t *Table) Find(key string) (Receipt, bool) {
	i, ok := t.byKey[key]
	if !ok {
		return Receipt{}, false
	}
	return t.all[i], true
}

// Plan gives the bytes that the section gets with the commit that r is about: appended to those
// that are there, or in their place. Done has to follow if the commit succeeds.
func (t *Table) Plan(r Receipt) (b []byte, appended bool) {
	t.next, t.whole = &r, 0
	if len(t.all)+1 <= 2*MostKept && t.bytes+r.size() <= 2*MostBytes {
		return encode(nil, &r), true
	}
	// The newest that have room beside the new one.
	kept, bytes := 1, r.size()
	from := len(t.all)
	for from > 0 && kept < MostKept && bytes+t.all[from-1].size() <= MostBytes {
		from--
		kept++
		bytes += t.all[from].size()
	}
	for i := range t.all[from:] {
		b = encode(b, &t.all[from+i])
	}
	t.whole = from
	return encode(b, &r), false
}

func encode(b []byte, r *Receipt) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(r.Key))), r.Key...)
	b = append(b, r.Digest[:]...)
	b = binary.AppendUvarint(b, r.Seq)
	return append(binary.AppendUvarint(b, uint64(len(r.Effect))), r.Effect...)
}

// Done takes the receipt that was planned.
func (t *Table) Done() {
	if t.whole > 0 {
		old := t.all[t.whole:]
		*t = Table{byKey: make(map[string]int, len(old)+1), next: t.next}
		for _, r := range old {
			t.add(r)
		}
	}
	t.add(*t.next)
	t.next, t.whole = nil, 0
}
