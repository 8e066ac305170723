package wal

import (
	"fmt"
	"io/fs"
	"strings"
)

// Which segment is replayed onto the state fromSeq that the caller has checkpointed already:
//
//   - A segment follows the state when its base is not higher than fromSeq: all that was before
//     it is checkpointed, so the other segment does not matter.
//   - A segment follows the other one when its header names the other's salt and exactly the
//     end and the checksum that were found there. Otherwise the other one is torn, and what was
//     appended later is not replayed.
//
// A segment that follows neither is not replayed. Without damage that has two causes: a power
// cut lost part of the segment before, or a Reset did not finish.
//
// Damage is told from a torn tail by what the segments say about the log, in headers, records
// and end marks: up to which commit it was durable. A commit up to that one which is neither
// checkpointed nor replayed is damage. They also show up to which commit the log had gone: what is
// missing of that is legal after a power cut, not after a kill.

// Recovery is what Replay did.
type Recovery struct {
	LastSeq uint64 // of the last record given to fn; fromSeq if there was none
	Records int    // given to fn
	// Torn: commits after LastSeq are lost, and nothing says that they had been synced. A power
	// cut may do that; a kill does not. It stays so until Reset.
	Torn bool
	// SeenSeq: something in the wal shows that it had gone up to this commit.
	SeenSeq uint64
}

// Replay calls fn for each commit after fromSeq, in order and without a gap. An error of fn ends
// it and is returned. The error is [ErrCorrupt] when commits are missing that had been synced; fn
// has been called for those before the damage.
//
// Replay changes nothing. It is for the time between Open and Reset.
func (l *Log) Replay(fromSeq uint64, fn func(Record) error) (Recovery, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec := Recovery{LastSeq: fromSeq}
	if l.closed {
		return rec, fmt.Errorf("wal %s: %w", l.dir, fs.ErrClosed)
	}
	if l.ready {
		return rec, fmt.Errorf("wal %s: replay after reset", l.dir)
	}
	older, newer := l.byAge()
	err := error(nil)
	switch {
	case newer == nil:
		err = older.replay(&rec, fn)
	case newer.found.header.base <= fromSeq:
		err = newer.replay(&rec, fn)
	default:
		err = older.replay(&rec, fn)
		if err == nil && newer.found.follows(&older.found) {
			err = newer.replay(&rec, fn)
		}
	}
	if err != nil {
		return rec, err
	}
	for _, s := range l.segments {
		f := &s.found
		rec.SeenSeq = max(rec.SeenSeq, f.seen)
		switch {
		case f.state == HeaderDamaged:
			err = fmt.Errorf("%w: %s: %s", ErrCorrupt, s.path, f.problem)
		case f.durable > rec.LastSeq:
			err = fmt.Errorf("%w: the log ends at record %d (%s), "+
				"but %s says that all up to record %d had been synced",
				ErrCorrupt, rec.LastSeq, l.ends(), s.path, f.durable)
		case f.seen > rec.LastSeq:
			rec.Torn = true
		}
		if err != nil {
			return rec, err
		}
	}
	return rec, nil
}

// EndSeq is the last commit that Replay would give from fromSeq on, or fromSeq if there is none. It
// is for the time between Open and Reset.
func (l *Log) EndSeq(fromSeq uint64) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := fromSeq
	older, newer := l.byAge()
	for _, s := range []*segment{older, newer} {
		if s != nil && s.found.header.base <= last {
			last = max(last, s.found.end.seq)
		}
	}
	return last
}

// ends says why the records of the open segments end.
func (l *Log) ends() string {
	var all []string
	for _, s := range l.segments {
		if s.found.state == HeaderOpen {
			all = append(all, s.path+": "+s.found.reason())
		}
	}
	return strings.Join(all, "; ")
}

// byAge gives the open segments; newer is nil when there are less than two, older when none.
func (l *Log) byAge() (older, newer *segment) {
	for _, s := range l.segments {
		switch {
		case s.found.state != HeaderOpen:
		case older == nil:
			older = s
		case s.found.header.base < older.found.header.base:
			older, newer = s, older
		default:
			newer = s
		}
	}
	return older, newer
}

// replay gives the records of s, which may be nil, if s follows rec.LastSeq.
func (s *segment) replay(rec *Recovery, fn func(Record) error) error {
	if s == nil || s.found.header.base > rec.LastSeq {
		return nil
	}
	f := &s.found
	err := f.each(func(r Record) error {
		if r.Seq <= rec.LastSeq {
			return nil
		}
		if err := fn(r); err != nil {
			return err
		}
		rec.LastSeq = r.Seq
		rec.Records++
		return nil
	})
	if err != nil {
		return err
	}
	if f.cut && !f.marked || f.end.why == faultHole {
		return fmt.Errorf("%w: %s: record %d: %s", ErrCorrupt, s.path, f.end.seq+1, f.reason())
	}
	return nil
}

// each gives the valid records of an open segment. They have been checked when they were read.
func (f *found) each(fn func(Record) error) error {
	for b := f.content[headerSize:]; len(b) > 0; {
		length, _ := lengthOf(b, int64(len(b)))
		r, _ := splitRecord(b[:length])
		if err := fn(r); err != nil {
			return err
		}
		b = b[length:]
	}
	return nil
}
