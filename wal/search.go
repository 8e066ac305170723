package wal

import "github.com/mmrun/mmrun/vfs"

// searchBehind looks behind the last valid record for proof that the log had been longer: an
// end mark of this generation, or a record whose checksum fits the one stored in what looks like
// the record before it. Neither can be left from an older generation, since the salt is in both
// checksums. Holes hold neither.
func (s *segment) searchBehind(im *image) error {
	f := &s.found
	salt, size, end := f.header.salt, im.size, f.end.offset
	w := &window{file: im.file, size: size}
	if b, err := w.at(end, endMarkSize); err != nil {
		return err
	} else if last, durable, ok := readEndMark(b, end, salt); ok {
		f.marked = true
		f.note(last, durable)
	}
	budget := int64(0) // bytes to checksum, so that hostile bytes do not take for ever
	for from := end; from < size; {
		start, stop, err := vfs.NextData(im.file, from)
		if err != nil {
			return err
		}
		start, stop = max(start&^7, end), min(stop, size)
		budget += 2 * max(stop-start, 0)
		for at := start; at <= size-endMarkSize && at < stop; at += 8 {
			b, err := w.at(at, recordHeaderSize)
			if err != nil {
				return err
			}
			if le.Uint32(b[4:]) == 0 {
				if last, durable, ok := readEndMark(b, at, salt); ok && at > end {
					f.note(last, durable)
					f.behind = at
				}
				continue
			}
			// The cheap test first: each record since the end took at least its header.
			seq := le.Uint64(b[8:])
			if seq-f.end.seq-1 > uint64(at-end)/recordHeaderSize || seq >= MaxSeq {
				continue
			}
			if length, why := lengthOf(b, size-at); why == faultNone && budget > 0 {
				seed := le.Uint32(b) ^ mix(salt)
				if err := s.searchNext(im, at+length, seed, seq+1, &budget); err != nil {
					return err
				}
			}
		}
		if stop <= from {
			break
		}
		from = stop
	}
	return nil
}

// searchNext looks for the record that follows one which is not valid itself.
func (s *segment) searchNext(im *image, at int64, seed uint32, seq uint64, budget *int64) error {
	room := im.size - at
	if room < recordHeaderSize {
		return nil
	}
	b := make([]byte, recordHeaderSize)
	if err := readFull(im.file, b, at); err != nil {
		return err
	}
	length, why := lengthOf(b, room)
	if why != faultNone || le.Uint64(b[8:]) != seq || length > *budget {
		return nil
	}
	*budget -= length
	b = make([]byte, length)
	if err := readFull(im.file, b, at); err != nil {
		return err
	}
	if r, _, why := readRecord(b, seed, seq); why == faultNone {
		s.found.note(r.Seq, r.durable)
		s.found.behind = at
	}
	return nil
}

// window reads a file here and there, mostly forwards.
type window struct {
	file  vfs.File
	size  int64
	start int64
	b     []byte
	buf   []byte
}

// at gives the n bytes at an offset, or those that there are. They are valid until the next call.
func (w *window) at(offset, n int64) ([]byte, error) {
	if n = max(min(n, w.size-offset), 0); offset >= w.start && offset+n <= w.start+int64(len(w.b)) {
		return w.b[offset-w.start:][:n], nil
	}
	if w.buf == nil {
		w.buf = make([]byte, min(readChunk, w.size))
	}
	w.start = offset
	w.b = w.buf[:min(int64(len(w.buf)), w.size-offset)]
	if err := readFull(w.file, w.b, offset); err != nil {
		return nil, err
	}
	return w.b[:n], nil
}
