package wal

import (
	"errors"
	"fmt"
)

// Sealed is a segment on its way into the caller's files: Sync it, then Replay it into them and
// sync them, then Release it. Appends go on meanwhile in the other segment.
type Sealed struct {
	l    *Log
	seg  *segment
	salt uint64
	base uint64
	last uint64
	tail int64
}

// Sealed gives the sealed segment, nil when there is none.
func (l *Log) Sealed() *Sealed {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sealed
	if s == nil || l.closed {
		return nil
	}
	return &Sealed{l: l, seg: s,
		salt: s.header.salt, base: s.header.base, last: s.last, tail: s.tail}
}

// BaseSeq is the sequence number of the commit before the first one in the segment.
func (s *Sealed) BaseSeq() uint64 { return s.base }

// LastSeq is the sequence number of the last commit in the segment.
func (s *Sealed) LastSeq() uint64 { return s.last }

// check is nil while the segment is sealed. It is called with mu held.
func (s *Sealed) check() error {
	if err := s.l.usable(); err != nil {
		return err
	}
	if s.l.sealed != s.seg || s.seg.header.salt != s.salt {
		return fmt.Errorf("wal %s: the segment up to commit %d has been released", s.l.dir, s.last)
	}
	return nil
}

// Sync makes the segment durable. Until then its records must not change any other file: a
// power cut could keep the change and lose the record.
func (s *Sealed) Sync() error {
	s.l.syncMu.Lock()
	defer s.l.syncMu.Unlock()
	s.l.mu.Lock()
	err := s.check()
	u := s.seg.unsynced()
	s.l.mu.Unlock()
	if err != nil {
		return err
	}
	return s.l.sync(u)
}

// Replay calls fn for each record, in order. An error of fn ends it and is returned. The
// checksums are verified again: the pages may have been read back from a disk meanwhile.
// It must not run during Release or Close.
func (s *Sealed) Replay(fn func(Record) error) error {
	s.l.mu.Lock()
	err := s.check()
	h, m := s.seg.header, s.seg.bytes
	s.l.mu.Unlock()
	if err != nil {
		return err
	}
	var b [headerBytes]byte
	e, err := walk(&image{b: m[:s.tail], size: s.tail}, &h, h.encode(&b), fn)
	if err == nil && e.offset != s.tail {
		err = fmt.Errorf("%w: %s: record %d: %s at offset %d",
			ErrCorrupt, s.seg.path, e.seq+1, e.why, e.offset)
	}
	return err
}

// Release gives the segment back for reuse. All its commits must be durable elsewhere: from now
// on it may be overwritten, and a power cut may leave any part of it. The fromSeq that the
// next [Log.Replay] is given must be LastSeq or higher.
//
// A segment that was full grows here, away from the goroutine that appends, and one that was grown
// beyond its full size is cut back. A disk without room for more is no error: the segment stays as
// large as it is.
func (s *Sealed) Release() error {
	l := s.l
	l.sizeMu.Lock()
	defer l.sizeMu.Unlock()
	size, err := s.retire()
	switch {
	case err != nil:
		return err
	case size < s.seg.size():
		err = l.cutBack(s.seg, s.last)
	case size > s.seg.size():
		err = l.grow(s.seg, size, true)
		if !errors.Is(err, ErrFailed) {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sealed = nil
	return nil
}

// retire waits for a sync that may be under way; after that none touches the segment, whose commits
// are durable elsewhere. It stays sealed, so nobody begins it. size is what it is to have.
func (s *Sealed) retire() (size int64, err error) {
	l := s.l
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := s.check(); err != nil {
		return 0, err
	}
	s.seg.synced = s.seg.tail
	l.durable = max(l.durable, s.last)
	if size = min(s.seg.size(), l.size); s.seg.tail > size/2 {
		size = max(size, min(2*max(size, l.other(s.seg).size()), l.size))
	}
	return size, nil
}
