package engine

import (
	"errors"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// checkTogether tells whether slot, log and checksums are of one state at one time, whatever crash
// came before. stamp is nil for a module without a memory. It takes no time that grows with the
// memory; see internal/binding for what is said where.
func checkTogether(slot *globalsfile.State, log replayer, stamp *binding.Stamp) error {
	f := binding.Files{SlotSeq: slot.Seq, Slot: slot.Binding}
	first := errors.New("that is all that is wanted")
	_, err := log.Replay(slot.Seq, func(r wal.Record) error {
		f.First, f.Stretch = delta.Binding(r.Small)
		return first
	})
	if err != nil && !errors.Is(err, first) {
		return err
	}
	f.Last = log.EndSeq(slot.Seq)
	if stamp != nil {
		f.Memory, f.Stamp = true, *stamp
	}
	if err := f.Check(); err != nil {
		return errs.As(errs.ErrCorrupt, err)
	}
	return nil
}

// replayer is a log that can be read: wal.Log or wal.View.
type replayer interface {
	Replay(fromSeq uint64, fn func(wal.Record) error) (wal.Recovery, error)
	EndSeq(fromSeq uint64) uint64
}

// CheckTogether does it for a state that nobody owns, without a mapping or a change: sums is the
// file of page checksums, nil without a memory. The error is of a kind if there is something wrong
// with the files.
func CheckTogether(v *View, sums vfs.File) error {
	var stamp *binding.Stamp
	if sums != nil {
		s, err := pagefile.ReadStamp(sums)
		switch {
		case errors.Is(err, pagefile.ErrChecksum):
			return errs.As(errs.ErrCorrupt, err)
		case errors.Is(err, pagefile.ErrVersion):
			return errs.As(errs.ErrUnsupported, err)
		case err != nil:
			return err
		}
		stamp = &s
	}
	if v.WAL == nil || v.WALErr != nil {
		return nil // which is reported by itself
	}
	return checkTogether(v.Slot, v.WAL, stamp)
}
