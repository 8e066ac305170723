package delta

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/mmrun/mmrun/globalsfile"
)

/*
A delta is how the small state (globals, tables, dropped flags, metadata) differs from that of the
commit before. It is the "small state" of a wal record: a sequence of entries, each a kind byte and
then, with every number an unsigned varint unless said otherwise:

	1 global   index, value (8 bytes, little endian)           i32, i64, f32, f64, function index
	2 wide     index, low half, high half (8 bytes each)       v128
	3 dropped  index of the segment                            it has been dropped
	4 table    index, entries n, n entries (4 bytes each)      its whole content; function index or -1
	5 meta     length, bytes                                   the user's metadata

Setting a value, not adding to it, makes applying a delta twice the same as once.
*/
const (
	deltaGlobal  = 1
	deltaWide    = 2
	deltaDropped = 3
	deltaTable   = 4
	deltaMeta    = 5
)

func AppendGlobal(b []byte, index int, lo uint64) []byte {
	b = binary.AppendUvarint(append(b, deltaGlobal), uint64(index))
	return binary.LittleEndian.AppendUint64(b, lo)
}

func AppendWide(b []byte, index int, lo, hi uint64) []byte {
	b = binary.AppendUvarint(append(b, deltaWide), uint64(index))
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(b, lo), hi)
}

func AppendDropped(b []byte, index int) []byte {
	return binary.AppendUvarint(append(b, deltaDropped), uint64(index))
}

func AppendTable(b []byte, index int, entries []int32) []byte {
	b = binary.AppendUvarint(append(b, deltaTable), uint64(index))
	b = binary.AppendUvarint(b, uint64(len(entries)))
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint32(b, uint32(e))
	}
	return b
}

func AppendMeta(b, meta []byte) []byte {
	b = binary.AppendUvarint(append(b, deltaMeta), uint64(len(meta)))
	return append(b, meta...)
}

var errDelta = errors.New("malformed change of the small state")

// Apply brings s forward by one delta. On an error s is in part changed. It keeps no part of b.
func Apply(s *globalsfile.State, b []byte) error {
	number := func() (uint64, error) {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, errDelta
		}
		b = b[n:]
		return v, nil
	}
	index := func(limit int) (int, error) {
		v, err := number()
		if err != nil || v >= uint64(limit) {
			return 0, fmt.Errorf("%w: index %d of %d", errDelta, v, limit)
		}
		return int(v), nil
	}
	take := func(n uint64) ([]byte, error) {
		if n > uint64(len(b)) {
			return nil, errDelta
		}
		p := b[:n]
		b = b[n:]
		return p, nil
	}
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		switch kind {
		case deltaGlobal, deltaWide:
			i, err := index(len(s.Globals))
			if err != nil {
				return err
			}
			p, err := take(8 * uint64(kind)) // one half or two
			if err != nil {
				return err
			}
			s.Globals[i].Lo = binary.LittleEndian.Uint64(p)
			if kind == deltaWide {
				s.Globals[i].Hi = binary.LittleEndian.Uint64(p[8:])
			}
		case deltaDropped:
			i, err := index(len(s.Dropped))
			if err != nil {
				return err
			}
			s.Dropped[i] = true
		case deltaTable:
			i, err := index(len(s.Tables))
			if err != nil {
				return err
			}
			n, err := number()
			if err != nil || n > uint64(len(b))/4 {
				return errDelta
			}
			p, _ := take(4 * n)
			table := slices.Grow(s.Tables[i][:0], int(n))
			for ; len(p) > 0; p = p[4:] {
				table = append(table, int32(binary.LittleEndian.Uint32(p)))
			}
			s.Tables[i] = table
		case deltaMeta:
			n, err := number()
			if err != nil {
				return err
			}
			p, err := take(n)
			if err != nil {
				return err
			}
			s.Meta = append(s.Meta[:0], p...)
		default:
			return fmt.Errorf("%w: kind %d", errDelta, kind)
		}
	}
	return nil
}

// Clone is a deep copy.
func Clone(s *globalsfile.State) *globalsfile.State {
	c := *s
	c.Globals = slices.Clone(s.Globals)
	c.Dropped = slices.Clone(s.Dropped)
	c.Meta = slices.Clone(s.Meta)
	c.Tables = make([][]int32, len(s.Tables))
	for i, t := range s.Tables {
		c.Tables[i] = slices.Clone(t)
	}
	return &c
}
