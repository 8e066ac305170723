package wal

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mmrun/mmrun/vfs"
)

// found is what was found in a segment file.
type found struct {
	fileSize int64
	state    HeaderState
	problem  string // of a damaged header
	header   header

	records int
	content []byte // of the file, up to the end of the records
	end     walkEnd
	marked  bool   // an end mark stands at the end
	behind  int64  // offset of something of this generation behind the end; 0: nothing was found
	seen    uint64 // there is proof that the log had gone up to this commit
	durable uint64 // and that it had been durable up to this one
	cut     bool   // the file is shorter than it was
}

func (f *found) note(seen, durable uint64) {
	f.seen, f.durable = max(f.seen, seen), max(f.durable, durable)
}

// follows tells whether f goes on exactly where prev ends.
func (f *found) follows(prev *found) bool {
	l := f.header.prev
	return l.salt == prev.header.salt && l.end == prev.end.offset && l.chain == prev.end.chain &&
		f.header.base == prev.end.seq
}

// read reads a file of any content, once, and changes nothing. What it allocates and looks at is
// measured by what the file has blocks for, whatever the header, a record or the length of the
// file claims.
func (s *segment) read() error {
	return s.open(os.O_RDONLY, func(file vfs.File) error {
		size, err := file.Size()
		if err != nil {
			return err
		}
		s.fileSize = size
		s.found = found{fileSize: size}
		f := &s.found
		c := &image{file: file, size: min(size, headerSize)}
		if _, err := c.need(c.size); err != nil {
			return err
		}
		var crc uint32
		if f.header, crc, f.state, f.problem, err = decodeHeader(c.b); err != nil {
			return fmt.Errorf("%s: %w", s.path, err)
		}
		if f.state != HeaderOpen {
			return nil
		}
		f.note(f.header.base, f.header.durable)
		f.cut = f.header.size > size
		c.size = min(f.header.size, size) &^ 7
		f.end, err = walk(c, &f.header, crc, func(r Record) error {
			f.records++
			f.note(r.Seq, r.durable)
			return nil
		})
		if err != nil {
			return err
		}
		f.content = c.b[:f.end.offset:f.end.offset]
		c.b = nil
		return s.searchBehind(c)
	})
}

// image is the bytes of a segment, as far as somebody has needed them.
type image struct {
	b    []byte   // the first bytes
	size int64    // how many there are; a multiple of 8 but for a file too short for a header
	file vfs.File // where the rest comes from, nil if b is all

	holes int64 // bytes of b that are holes in the file
}

const (
	readChunk = 64 << 10 // bytes read at once, at least
	// mostHoles is how many bytes of holes the records of a segment may have: a copy made with
	// holes has some where a record has pages of zeros. A file that claims more is not one that
	// was written here.
	mostHoles = 64 << 20
)

// need makes sure that b holds the first n bytes, which must not be more than size.
func (im *image) need(n int64) (why fault, err error) {
	have := int64(len(im.b))
	if n <= have {
		return faultNone, nil
	}
	holes, err := holesIn(im.file, have, n)
	if err != nil {
		return faultNone, err
	}
	if im.holes += holes; im.holes > mostHoles {
		return faultHole, nil
	}
	// More than was asked for, so that small records are not read one by one; but no holes.
	to := n
	if ahead := min(max(2*have, readChunk), im.size); ahead > n {
		start, end, err := vfs.NextData(im.file, n)
		if err != nil {
			return faultNone, err
		}
		if start == n {
			to = min(ahead, end)
		}
	}
	b := make([]byte, to)
	copy(b, im.b)
	if err := readFull(im.file, b[have:], have); err != nil {
		return faultNone, err
	}
	im.b = b
	return faultNone, nil
}

// holesIn counts the bytes of [from, to) that are holes, or enough of them.
func holesIn(f vfs.File, from, to int64) (holes int64, err error) {
	for from < to && holes <= mostHoles {
		start, end, err := vfs.NextData(f, from)
		if err != nil {
			return 0, err
		}
		start = min(start, to)
		holes += start - from
		if end <= start && start < to {
			return holes + to - start, nil // the file has become shorter
		}
		from = end
	}
	return holes, nil
}

// readFull reads b at an offset. Behind the end of a file that has become shorter there are zeros.
func readFull(f vfs.File, b []byte, offset int64) error {
	n, err := f.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(b[n:])
	return nil
}

// walkEnd is where the valid records of a segment end.
type walkEnd struct {
	seq    uint64 // of the last valid record, or the base
	offset int64  // behind it
	chain  uint32 // its checksum, or the header's
	why    fault  // there is no valid record at offset
}

// walk calls fn for each valid record of an image that begins with the header h.
func walk(im *image, h *header, headerCRC uint32, fn func(Record) error) (e walkEnd, err error) {
	e = walkEnd{seq: h.base, offset: headerSize, chain: headerCRC}
	for {
		var r Record
		var length int64
		var crc uint32
		r, length, crc, e.why, err = im.recordAt(e, h.salt)
		if err != nil || e.why != faultNone {
			return e, err
		}
		if err := fn(r); err != nil {
			return e, err
		}
		e.seq, e.offset, e.chain = e.seq+1, e.offset+length, crc
	}
}

// recordAt reads the record behind e. A record that does not belong there is not read further
// than its header.
func (im *image) recordAt(e walkEnd, salt uint64) (
	r Record, length int64, crc uint32, why fault, err error,
) {
	room := im.size - e.offset
	if room < recordHeaderSize {
		return r, 0, 0, faultNoRoom, nil
	}
	if e.seq >= MaxSeq {
		return r, 0, 0, faultLastSeq, nil
	}
	if why, err = im.need(e.offset + recordHeaderSize); err != nil || why != faultNone {
		return r, 0, 0, why, err
	}
	b := im.b[e.offset:]
	if length, why = lengthOf(b, room); why != faultNone {
		return r, 0, 0, why, nil
	}
	if le.Uint64(b[8:]) != e.seq+1 {
		return r, 0, 0, faultSeq, nil
	}
	if why, err = im.need(e.offset + length); err != nil || why != faultNone {
		return r, 0, 0, why, err
	}
	r, crc, why = readRecord(im.b[e.offset:e.offset+length], e.chain^mix(salt), e.seq+1)
	return r, length, crc, why, nil
}

// reason says why the records end, with offsets.
func (f *found) reason() string {
	e := f.end
	switch {
	case f.state != HeaderOpen:
		return ""
	case f.cut && !f.marked:
		return fmt.Sprintf("%s at offset %d, and the file has %d bytes instead of %d",
			e.why, e.offset, f.fileSize, f.header.size)
	case f.behind > 0:
		return fmt.Sprintf("%s at offset %d, although the log goes on up to offset %d",
			e.why, e.offset, f.behind)
	case f.marked:
		return fmt.Sprintf("end mark at offset %d", e.offset)
	default:
		return fmt.Sprintf("%s at offset %d", e.why, e.offset)
	}
}
