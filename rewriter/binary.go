package rewriter

import "unicode/utf8"

// reader decodes the binary format. It always holds the whole module, so that pos is an offset that an error can name;
// end is where the part that is being read ends.
type reader struct {
	buf []byte
	pos int
	end int
}

func (r *reader) left() int { return r.end - r.pos }

func (r *reader) byte() (byte, error) {
	if r.pos >= r.end {
		return 0, malformed(r.pos, "unexpected end")
	}
	b := r.buf[r.pos]
	r.pos++
	return b, nil
}

func (r *reader) skip(n uint32) error {
	if uint64(n) > uint64(r.left()) {
		return malformed(r.pos, "%d bytes needed, %d left", n, r.left())
	}
	r.pos += int(n)
	return nil
}

func (r *reader) u32() (uint32, error) {
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
	return 0, malformed(start, "number does not fit into 32 bits")
}

// signed reads a signed number of at most bits bits.
func (r *reader) signed(bits int) (int64, error) {
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
	return 0, malformed(start, "number does not fit into %d bits", bits)
}

// count reads the length of a vector. Every entry takes at least one byte, so a count beyond what is left is a lie, and
// what the caller allocates for it is bounded by the size of the input.
func (r *reader) count(what string) (int, error) {
	start := r.pos
	n, err := r.u32()
	if err != nil {
		return 0, err
	}
	if uint64(n) > uint64(r.left()) {
		return 0, malformed(start, "%d %s announced, %d bytes left", n, what, r.left())
	}
	return int(n), nil
}

func (r *reader) name() (string, error) {
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
		return "", malformed(start, "name is not UTF-8")
	}
	return string(b), nil
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS32(b []byte, v int32) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func appendName(b []byte, s string) []byte {
	return append(appendU32(b, uint32(len(s))), s...)
}
