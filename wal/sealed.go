package wal

import "fmt"

// Sealed is a full segment on its way into the caller's files: Sync it, then Replay it into
// them and sync them, then Release it. Appends go on meanwhile in the other segment.
type Sealed struct {
	j    *Log
	seg  *segment
	salt uint64
	base uint64
	last uint64
	tail int64
}

// Sealed gives the sealed segment, nil when there is none.
func (j *Log) Sealed() *Sealed {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.sealed
	if s == nil || j.closed {
		return nil
	}
	return &Sealed{j: j, seg: s, salt: s.header.salt, base: s.header.base, last: s.last, tail: s.tail}
}

// BaseSeq is the sequence number of the commit before the first one in the segment.
func (s *Sealed) BaseSeq() uint64 { return s.base }

// LastSeq is the sequence number of the last commit in the segment.
func (s *Sealed) LastSeq() uint64 { return s.last }

// check is nil while the segment is sealed. It is called with mu held.
func (s *Sealed) check() error {
	if err := s.j.usable(); err != nil {
		return err
	}
	if s.j.sealed != s.seg || s.seg.header.salt != s.salt {
		return fmt.Errorf("wal %s: the segment up to commit %d has been released", s.j.dir, s.last)
	}
	return nil
}

// Sync makes the segment durable. Until then its records must not change any other file: a
// power cut could keep the change and lose the record.
func (s *Sealed) Sync() error {
	s.j.syncMu.Lock()
	defer s.j.syncMu.Unlock()
	s.j.mu.Lock()
	err := s.check()
	u := s.seg.unsynced()
	s.j.mu.Unlock()
	if err != nil {
		return err
	}
	return s.j.sync(u)
}

// Replay calls fn for each record, in order. An error of fn ends it and is returned. The
// checksums are verified again: the pages may have been read back from a disk meanwhile.
// It must not run during Release or Close.
func (s *Sealed) Replay(fn func(Record) error) error {
	s.j.mu.Lock()
	err := s.check()
	h, m := s.seg.header, s.seg.mapping
	s.j.mu.Unlock()
	if err != nil {
		return err
	}
	var b [headerBytes]byte
	e, err := walk(m[:s.tail], &h, h.encode(&b), fn)
	if err == nil && e.offset != s.tail {
		err = fmt.Errorf("%w: %s: record %d: %s at offset %d", ErrCorrupt, s.seg.file.Name(), e.seq+1, e.why, e.offset)
	}
	return err
}

// Release gives the segment back for reuse. All its commits must be durable elsewhere: from now
// on it may be overwritten, and a power cut may leave any part of it. The fromSeq that the
// next [Log.Replay] is given must be LastSeq or higher.
func (s *Sealed) Release() error {
	j := s.j
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	err := s.check()
	j.mu.Unlock()
	if err != nil {
		return err
	}
	// The segment stays sealed while its file is cut, so nobody else touches it.
	if s.seg.fileSize != j.size {
		if err := j.cutBack(s.seg, s.last); err != nil {
			return err
		}
	}
	j.mu.Lock()
	j.sealed = nil
	j.durable = max(j.durable, s.last)
	j.mu.Unlock()
	return nil
}

// cutBack gives a grown segment its standard size. Its header is durably idle before: an
// open header that promises more bytes than the file has is reported as damage.
func (j *Log) cutBack(s *segment, base uint64) error {
	s.putIdle(base)
	err := s.file.Sync()
	if err == nil {
		err = s.resize(j.size, true)
	}
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		return j.fail(err)
	}
	return nil
}
