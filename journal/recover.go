package journal

import (
	"fmt"
	"io/fs"
)

// Which segment is replayed onto the state fromSeq that the caller has folded already:
//
//   - A segment follows the state when its base is not higher than fromSeq: all that was before
//     it is folded, so the other segment does not matter.
//   - A segment follows the other one when its header names the other's salt and exactly the
//     end and the checksum that were found there. Otherwise the other one is torn, and what was
//     appended later is not replayed.
//
// A segment that follows neither is not replayed. Without damage that has two causes: a power
// cut lost part of the segment before, or a Reset did not finish.
//
// Damage is told from a torn tail by the sync notes (record.go): what was noted to be synced
// and is not there any more is damage. A broken record with no note about it is legal after
// a power cut, not after a kill; that is reported as torn.

// Recovery is what Replay did.
type Recovery struct {
	LastSeq uint64 // of the last record given to fn; fromSeq if there was none
	Records int    // given to fn
	// Torn: records behind LastSeq are lost, and nothing says that they had been synced. A power
	// cut may do that; a kill does not. It stays so until Reset.
	Torn bool
}

// Replay calls fn for each commit after fromSeq, in order and without a gap. An error of fn ends
// it and is returned. The error is [ErrCorrupt] when commits are missing that had been synced; fn
// has been called for those before the damage.
//
// Replay changes nothing. It is for the time between Open and Reset.
func (j *Journal) Replay(fromSeq uint64, fn func(Record) error) (Recovery, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	rec := Recovery{LastSeq: fromSeq}
	if j.closed {
		return rec, fmt.Errorf("journal %s: %w", j.dir, fs.ErrClosed)
	}
	if j.ready {
		return rec, fmt.Errorf("journal %s: replay after reset", j.dir)
	}
	older, newer := j.byAge()
	var err error
	switch {
	case newer == nil:
		err = j.replayNext(older, &rec, fn)
	case newer.found.header.base <= fromSeq:
		err = j.replayNext(newer, &rec, fn)
	default:
		err = j.replayNext(older, &rec, fn)
		if err == nil && newer.found.follows(&older.found) {
			err = j.replayNext(newer, &rec, fn)
		} else if err == nil {
			err = newer.cannotFollow(&rec)
		}
	}
	if err != nil {
		return rec, err
	}
	for _, s := range j.segments {
		if s.found.state == HeaderDamaged {
			return rec, fmt.Errorf("%w: %s: %s", ErrCorrupt, s.file.Name(), s.found.problem)
		}
	}
	return rec, nil
}

// byAge gives the open segments; newer is nil when there are less than two, older when none.
func (j *Journal) byAge() (older, newer *segment) {
	for _, s := range j.segments {
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

// replayNext replays s, which may be nil, if it follows rec.LastSeq.
func (j *Journal) replayNext(s *segment, rec *Recovery, fn func(Record) error) error {
	if s == nil {
		return nil
	}
	f := &s.found
	if f.header.base > rec.LastSeq {
		return s.cannotFollow(rec)
	}
	_, err := walk(s.life(), &f.header, f.crc, func(r Record) error {
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
	switch f.endKind() {
	case EndDamaged:
		return fmt.Errorf("%w: %s: record %d: %s", ErrCorrupt, s.file.Name(), f.end.seq+1, f.reason())
	case EndTorn:
		rec.Torn = true
	}
	return nil
}

// cannotFollow judges a segment before which something is missing.
func (s *segment) cannotFollow(rec *Recovery) error {
	rec.Torn = true
	if f := &s.found; f.note > 0 {
		return fmt.Errorf("%w: %s: it continues from record %d, and all before it had been synced, but the log ends at record %d",
			ErrCorrupt, s.file.Name(), f.header.base, rec.LastSeq)
	}
	return nil
}

// walkEnd is where the valid records of a segment end.
type walkEnd struct {
	seq    uint64 // of the last valid record, or the base
	offset int64  // behind it
	chain  uint32 // its checksum, or the header's
	why    fault  // there is no valid record at offset
}

// walk calls fn for each valid record of a mapping that begins with the header h.
func walk(mapping []byte, h *header, headerCRC uint32, fn func(Record) error) (walkEnd, error) {
	e := walkEnd{seq: h.base, offset: headerSize, chain: headerCRC}
	for {
		r, length, crc, why := recordAt(mapping, e.offset, e.chain^mix(h.salt), e.seq+1)
		if why != faultNone {
			e.why = why
			return e, nil
		}
		if err := fn(r); err != nil {
			return e, err
		}
		e.seq, e.offset, e.chain = e.seq+1, e.offset+length, crc
	}
}
