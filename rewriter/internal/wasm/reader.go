package wasm

import "unicode/utf8"

// Reader decodes the binary format. Positions, and the offsets in errors, count from the start of
// the buffer; a part of it can be read without the rest.
type Reader struct {
	buf []byte
	pos int
	end int

	bounds *bounds         // what indices are checked against, nil to believe them
	refs   func(*indexRef) // is told of each index that Encode may have to renumber, may be nil
}

// NewReader reads all of buf. Indices in it are not checked.
func NewReader(buf []byte) *Reader { return &Reader{buf: buf, end: len(buf)} }

// part reads a part of what r reads, in the same way.
func (r *Reader) part(start, end int) *Reader {
	return &Reader{buf: r.buf, pos: start, end: end, bounds: r.bounds, refs: r.refs}
}

func (r *Reader) left() int { return r.end - r.pos }

func (r *Reader) byte() (byte, error) {
	if r.pos >= r.end {
		return 0, Malformed(r.pos, "unexpected end")
	}
	b := r.buf[r.pos]
	r.pos++
	return b, nil
}

func (r *Reader) skip(n uint32) error {
	if uint64(n) > uint64(r.left()) {
		return Malformed(r.pos, "%d bytes needed, %d left", n, r.left())
	}
	r.pos += int(n)
	return nil
}

func (r *Reader) u32() (uint32, error) {
	if r.pos < r.end && r.buf[r.pos] < 0x80 { // nearly all of them
		r.pos++
		return uint32(r.buf[r.pos-1]), nil
	}
	start := r.pos
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		if shift == 28 && b > 0x0f {
			break
		}
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v, nil
		}
	}
	return 0, Malformed(start, "number does not fit into 32 bits")
}

// signed reads a signed number of at most bits bits.
func (r *Reader) signed(bits int) (int64, error) {
	start := r.pos
	var v int64
	for shift := 0; shift < bits; shift += 7 {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if shift+7 < 64 && b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			if bits < 64 && (v < -1<<(bits-1) || v >= 1<<(bits-1)) {
				break
			}
			return v, nil
		}
	}
	return 0, Malformed(start, "number does not fit into %d bits", bits)
}

// index reads an index into a space.
func (r *Reader) index(s Space) (uint32, error) {
	start := r.pos
	v, err := r.u32()
	if err != nil {
		return 0, err
	}
	if r.bounds != nil && v >= r.bounds[s] {
		return 0, r.beyond(start, s, uint64(v))
	}
	if r.refs != nil {
		r.refs(&indexRef{space: s, start: start, end: r.pos, index: v})
	}
	return v, nil
}

func (r *Reader) beyond(start int, s Space, index uint64) error {
	switch n := r.bounds[s]; {
	case n > 0:
		return Malformed(start, "there is no %s %d, the last one is %d", s, index, n-1)
	case s == SpaceData:
		return Malformed(start,
			"there is no data segment %d, for no data count section announces it",
			index)
	default:
		return Malformed(start, "there is no %s %d, there is none at all", s, index)
	}
}

// memory reads the index of a memory, of which there is at most one.
func (r *Reader) memory(what string) error {
	start := r.pos
	v, err := r.u32()
	switch {
	case err != nil:
		return err
	case v != 0:
		return Unsupported(start, "several memories are not supported (%s on memory %d)", what, v)
	case r.bounds != nil && r.bounds[SpaceMemory] == 0:
		return Malformed(start, "%s needs a memory, the module has none", what)
	}
	return nil
}

// count reads the length of a vector. Every entry takes at least one byte, so a count beyond what
// is left is a lie, and what the caller allocates for it is bounded by the size of the input.
func (r *Reader) count(what string) (int, error) {
	start := r.pos
	n, err := r.u32()
	if err != nil {
		return 0, err
	}
	if uint64(n) > uint64(r.left()) {
		return 0, Malformed(start, "%d %s announced, %d bytes left", n, what, r.left())
	}
	return int(n), nil
}

func (r *Reader) name() (string, error) {
	n, err := r.u32()
	if err != nil {
		return "", err
	}
	start := r.pos
	if err := r.skip(n); err != nil {
		return "", err
	}
	b := r.buf[start:r.pos]
	if !utf8.Valid(b) {
		return "", Malformed(start, "name is not UTF-8")
	}
	return string(b), nil
}

// AppendU32 appends an unsigned number.
func AppendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// AppendS64 appends a signed number; one of 32 bits looks the same.
func AppendS64(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

// AppendName appends a string with its length.
func AppendName(b []byte, s string) []byte {
	return append(AppendU32(b, uint32(len(s))), s...)
}

// AppendSection appends a section with its header.
func AppendSection(out []byte, id byte, content []byte) []byte {
	out = AppendU32(append(out, id), uint32(len(content)))
	return append(out, content...)
}
