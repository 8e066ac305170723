package wal

import "fmt"

// found is what Open found in a segment file.
type found struct {
	fileSize int64
	state    HeaderState
	problem  string // of a damaged header
	header   header
	crc      uint32 // of the header

	records int
	end     walkEnd
	marked  bool   // an end mark stands at the end
	behind  int64  // offset of something of this life behind the end; 0: nothing was found
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
	return l.salt == prev.header.salt && l.end == prev.end.offset && l.chain == prev.end.chain && f.header.base == prev.end.seq
}

// scan looks at a file of any content. It changes nothing; the error is not nil only for a
// header of another version.
func (s *segment) scan() error {
	f := &s.found
	*f = found{fileSize: s.fileSize}
	if s.mapping == nil {
		f.state = HeaderDamaged
		f.problem = fmt.Sprintf("the file has %d bytes, the header alone takes %d", s.fileSize, headerSize)
		return nil
	}
	var err error
	if f.header, f.crc, f.state, f.problem, err = decodeHeader(s.mapping); err != nil {
		return fmt.Errorf("wal: %s: %w", s.file.Name(), err)
	}
	if f.state != HeaderOpen {
		return nil
	}
	s.header.salt = f.header.salt // the next one will differ
	f.note(f.header.base, f.header.durable)
	f.cut = f.header.size > int64(len(s.mapping))
	f.end, _ = walk(s.life(), &f.header, f.crc, func(r Record) error {
		f.records++
		f.note(r.Seq, r.durable)
		return nil
	})
	s.searchBehind()
	return nil
}

// life is the part of the mapping that the life found may have written to.
func (s *segment) life() []byte {
	size := min(s.found.header.size, int64(len(s.mapping)))
	return s.mapping[:max(size, headerSize)&^7]
}

// searchBehind looks behind the last valid record for proof that the log had been longer: an
// end mark of this life, or a record whose checksum fits the one stored in what looks like the
// record before it. Neither can be left from an older life, since the salt is in both checksums.
func (s *segment) searchBehind() {
	f := &s.found
	m, salt := s.life(), f.header.salt
	if last, durable, ok := endMarkAt(m, f.end.offset, salt); ok {
		f.marked = true
		f.note(last, durable)
	}
	budget := 2 * int64(len(m)) // bytes to checksum, so that hostile bytes do not take for ever
	for at := f.end.offset; at <= int64(len(m))-endMarkSize && budget > 0; at += 8 {
		if le.Uint32(m[at+4:]) == 0 {
			if last, durable, ok := endMarkAt(m, at, salt); ok && at > f.end.offset {
				f.note(last, durable)
				f.behind = at
			}
			continue
		}
		// The cheap test first: each record since the end took at least its header.
		seq := le.Uint64(m[at+8:])
		if seq-f.end.seq-1 > uint64(at-f.end.offset)/recordHeaderSize {
			continue
		}
		length, why := lengthAt(m, at)
		if why != faultNone {
			continue
		}
		next := at + length
		if n, why := lengthAt(m, next); why == faultNone && le.Uint64(m[next+8:]) == seq+1 {
			budget -= n
			if r, _, _, why := recordAt(m, next, le.Uint32(m[at:])^mix(salt), seq+1); why == faultNone {
				f.note(r.Seq, r.durable)
				f.behind = next
			}
		}
	}
}

// reason says why the records end, with offsets.
func (f *found) reason() string {
	e := f.end
	switch {
	case f.state != HeaderOpen:
		return ""
	case f.cut && !f.marked:
		return fmt.Sprintf("%s at offset %d, and the file has %d bytes instead of %d", e.why, e.offset, f.fileSize, f.header.size)
	case f.behind > 0:
		return fmt.Sprintf("%s at offset %d, although the log goes on up to offset %d", e.why, e.offset, f.behind)
	case f.marked:
		return fmt.Sprintf("end mark at offset %d", e.offset)
	default:
		return fmt.Sprintf("%s at offset %d", e.why, e.offset)
	}
}

// SegmentReport is what Open found in one file. Whether anything is missing depends on the
// state that the wal is replayed onto, and is told by [Log.Replay]: a segment that
// has been folded may be half overwritten after a power cut.
type SegmentReport struct {
	Path          string
	FileSize      int64
	Header        HeaderState
	HeaderProblem string // of a damaged one

	// Of an open segment:
	Salt       uint64
	BaseSeq    uint64 // the sequence number before the first record
	LastSeq    uint64 // of the last valid record; BaseSeq if there is none
	Records    int    // valid ones
	EndOffset  int64  // behind the last valid record
	Reason     string // why the records end there
	SeenSeq    uint64 // something in the segment shows that the log had gone up to this commit
	DurableSeq uint64 // and that it had been durable up to this one
}

// Report describes both files as Open found them.
func (j *Log) Report() [2]SegmentReport {
	j.mu.Lock()
	defer j.mu.Unlock()
	var reports [2]SegmentReport
	for i, s := range j.segments {
		f := &s.found
		reports[i] = SegmentReport{
			Path: s.file.Name(), FileSize: f.fileSize, Header: f.state, HeaderProblem: f.problem,
			Salt: f.header.salt, BaseSeq: f.header.base, LastSeq: f.end.seq, Records: f.records,
			EndOffset: f.end.offset, Reason: f.reason(), SeenSeq: f.seen, DurableSeq: f.durable,
		}
	}
	return reports
}
