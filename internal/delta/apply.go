package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/section"
)

// ErrMalformed: the bytes are no delta, or not one of a state like this.
var ErrMalformed = errors.New("malformed change of the small state")

// Apply brings s forward by one delta, as a whole or, with an error, not at all. It keeps no part
// of b. The error wraps ErrMalformed; or section.ErrUnknown for a delta of a newer program, which
// no part of the commit may be used of then.
//
// A delta costs memory for the bytes that it has, whatever lengths it speaks of.
func Apply(s *globalsfile.State, b []byte) error {
	if err := Check(s, b); err != nil {
		return err
	}
	return walk(s, section.ReadKnown(b), true)
}

// Check tells whether Apply would succeed.
func Check(s *globalsfile.State, b []byte) error { return walk(s, section.Read(b, seed), false) }

// Apply brings s, which the changes were noted against, forward by them. It saves what [Apply]
// checks (BenchmarkOneGlobal).
func (e *Encoder) Apply(s *globalsfile.State) error {
	b := e.Bytes()
	if e.start == 0 && !e.written && 0 < len(b) && len(b) < 0x80 && b[0] == globalsTag {
		// One section of globals, which is what a hot event has: no need to look for others.
		c := cursor{b: b[2 : len(b)-4]}
		c.globals(s, true)
		return nil
	}
	return walk(s, section.ReadKnown(b), true)
}

// Binding is what [Encoder.Binding] has noted in the delta, zeros if nothing. The delta is one that
// Check accepts.
func Binding(b []byte) (checkpoint, stretch uint64) {
	r := section.ReadKnown(b)
	for s, more := r.Next(); more; s, more = r.Next() {
		if s.ID == section.Binding && len(s.Content) == bindingLength {
			le := binary.LittleEndian
			return le.Uint64(s.Content), le.Uint64(s.Content[8:])
		}
	}
	return 0, 0
}

const bindingLength = 16

// KeptIn is what a delta that Check accepts makes of a byte string, if it replaces all of it.
func KeptIn(b []byte, id section.ID) []byte {
	r := section.ReadKnown(b)
	for s, more := r.Next(); more; s, more = r.Next() {
		if s.ID != id {
			continue
		}
		if stay, n := binary.Uvarint(s.Content); n > 0 && stay == 0 {
			return s.Content[n:]
		}
	}
	return nil
}

// walk checks a delta, and stores what it says if told so. Both in one function, since what is
// stored must be what was checked.
func walk(s *globalsfile.State, r section.Reader, store bool) error {
	last, table := section.ID(0), -1
	for sec, ok := r.Next(); ok; sec, ok = r.Next() {
		if sec.ID == last && sec.ID != section.Tables {
			return malformed("%v: there are two", sec.ID)
		}
		last = sec.ID
		c := cursor{b: sec.Content}
		switch sec.ID {
		case section.Globals:
			c.globals(s, store)
		case section.Dropped:
			c.dropped(s, store)
		case section.Tables:
			table = c.table(s, table+1, store)
		case section.Meta:
			c.meta(s, store)
		case section.Binding:
			if c.take(bindingLength); len(c.b) > 0 {
				c.failed = true
			}
		default:
			if i, ok := sec.ID.Kept(); ok {
				c.kept(&s.Kept[i], store)
			} else if err := sec.Unknown(); err != nil {
				return err
			}
		}
		if c.failed {
			return malformed("%v", sec.ID)
		}
	}
	if err := r.Err(); err != nil {
		return malformed("%w", err)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// cursor reads the content of a section. After a failure nothing is left to read.
type cursor struct {
	b      []byte
	failed bool
}

func (c *cursor) fail() { c.b, c.failed = nil, true }

func (c *cursor) number() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.fail()
		return 0
	}
	c.b = c.b[n:]
	return v
}

// index is a number below limit; 0 after a failure, which need not be one.
func (c *cursor) index(v uint64, limit int) int {
	if v >= uint64(limit) {
		c.fail()
		return 0
	}
	return int(v)
}

// take is the next n bytes, nil after a failure.
func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.fail()
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *cursor) globals(s *globalsfile.State, store bool) {
	for len(c.b) > 0 {
		v := c.number()
		wide := v & 1
		i := c.index(v>>1, len(s.Globals))
		p := c.take(8 + 8*wide)
		if c.failed || !store {
			continue
		}
		g := &s.Globals[i]
		g.Lo = binary.LittleEndian.Uint64(p)
		if wide == 1 {
			g.Hi = binary.LittleEndian.Uint64(p[8:])
		}
	}
}

func (c *cursor) dropped(s *globalsfile.State, store bool) {
	for len(c.b) > 0 {
		i := c.index(c.number(), len(s.Dropped))
		if !c.failed && store {
			s.Dropped[i] = true
		}
	}
}

// table changes one table, the index of which is least or more, and returns its index.
func (c *cursor) table(s *globalsfile.State, least int, store bool) int {
	i := c.index(c.number(), len(s.Tables))
	if c.failed || i < least {
		c.fail()
		return i
	}
	d := c.changes(len(s.Tables[i]), 4)
	if store {
		s.Tables[i] = resize(s.Tables[i], int(d.now))
	}
	for at, p := d.next(c); p != nil; at, p = d.next(c) {
		for ; store && len(p) > 0; p = p[4:] {
			s.Tables[i][at] = int32(binary.LittleEndian.Uint32(p))
			at++
		}
	}
	return i
}

func (c *cursor) meta(s *globalsfile.State, store bool) {
	d := c.changes(len(s.Meta), 1)
	if store {
		s.Meta = resize(s.Meta, int(d.now))
	}
	for at, p := d.next(c); p != nil; at, p = d.next(c) {
		if store {
			copy(s.Meta[at:], p)
		}
	}
}

// kept changes a byte string. Doing it again changes nothing: what stays is as long as it was.
func (c *cursor) kept(b *[]byte, store bool) {
	stay := c.index(c.number(), len(*b)+1)
	if c.failed || !store {
		return
	}
	n := stay + len(c.b)
	*b = resize(*b, n)
	copy((*b)[stay:], c.b)
}

// changes are those of a sequence of elements, up to the end of the section.
type changes struct {
	old, now uint64 // lengths
	end      uint64 // of the last run
	width    uint64 // bytes in an element
}

func (c *cursor) changes(old int, width uint64) changes {
	d := changes{old: uint64(old), now: c.number(), width: width}
	// All that is behind the old length is in the section: this bounds what a length can claim.
	if d.now > d.old+uint64(len(c.b))/width {
		c.fail()
		d.now = 0
	}
	return d
}

// next is the next run, nil at the end and after a failure.
func (d *changes) next(c *cursor) (at int, run []byte) {
	// What lies behind the old length and in no run would be undefined.
	known := max(d.old, d.end)
	if len(c.b) == 0 {
		if d.now > known {
			c.fail()
		}
		return 0, nil
	}
	gap, count := c.number(), c.number()
	// In this order: the sums may be anything.
	if count == 0 || gap > d.now-d.end || count > d.now-d.end-gap || d.end+gap > known {
		c.fail()
		return 0, nil
	}
	at = int(d.end + gap)
	d.end += gap + count
	return at, c.take(count * d.width)
}

// resize gives s another length. It does not share memory that is too large for it: metadata that
// was long once would stay in memory for ever.
func resize[T any](s []T, length int) []T {
	if length <= cap(s) && cap(s) <= 2*length+1024 {
		return s[:length]
	}
	t := make([]T, length, length+length/4) // for what grows a little with each commit
	copy(t, s)
	return t
}

// Clone is a deep copy of a state.
func Clone(s *globalsfile.State) *globalsfile.State {
	c := *s
	c.Globals = slices.Clone(s.Globals)
	c.Dropped = slices.Clone(s.Dropped)
	c.Meta = slices.Clone(s.Meta)
	for i, b := range s.Kept {
		c.Kept[i] = slices.Clone(b)
	}
	c.Tables = make([][]int32, len(s.Tables))
	for i, t := range s.Tables {
		c.Tables[i] = slices.Clone(t)
	}
	return &c
}
