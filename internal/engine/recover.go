package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// openAtomic recovers: it replays what the log holds beyond the newest slot.
func (s *Store) openAtomic(sidecar *globalsfile.File, memory vfs.File) error {
	var sums *pagefile.Checksums
	var stamp *binding.Stamp
	if memory != nil {
		if _, err := checkMemoryFile(s.dir, memory, s.state); err != nil {
			return err
		}
		sums = checksumsOf(s.opts.FS, s.dir)
		defer sums.Release()
		found, err := sums.Stamp()
		if err != nil {
			return fileError(s.dir, err)
		}
		stamp = &found
	}
	c := newCheckpointer(s.dir, sidecar, s.state, memory, sums, s.opts.Logger)
	log, err := s.openLog()
	if err != nil {
		return err
	}
	if s.opts.History != nil {
		if c.history, err = s.opts.History(); err != nil {
			return errs.State(s.dir, "history", err)
		}
		s.files.add(c.history.Close)
	}
	if err := s.recover(log, c, stamp); err != nil {
		return fileError(s.dir, err)
	}
	if err := fitMemoryFile(s.dir, memory, s.state); err != nil {
		return err
	}
	if c.sums != nil {
		if err := c.sums.Clip(uint64(s.state.MemoryPages) * mmapmem.WasmPageSize); err != nil {
			return fileError(s.dir, err)
		}
	}
	if err := s.mapMemory(memory, mmapmem.Private); err != nil {
		return err
	}
	s.keep = &atomicKeeper{core: &s.core, log: log, checkpoint: c,
		number: s.state.Binding, stretch: binding.New(),
		meter: newMeter(s.opts.Now, s.Kept(section.TrackerCosts), s.guest.Marks() != nil)}
	if s.mem != nil {
		s.mem.InFile(s.state.Seq)
	}
	return nil
}

func (s *Store) openLog() (*wal.Log, error) {
	log, err := wal.Open(s.opts.FS, s.dir, DefaultWALSize/2)
	if err != nil {
		return nil, fileError(s.dir, err)
	}
	s.files.add(log.Close)
	return log, nil
}

// recover is a checkpoint of all that the log holds. It may be killed at any point and run again:
// the slot is written last, and until then the records are there.
func (s *Store) recover(log *wal.Log, c *checkpointer, stamp *binding.Stamp) error {
	// Before anything is changed: of files that do not belong together none may be touched.
	if err := checkTogether(s.state, log, stamp); err != nil {
		return err
	}
	// The write-ahead rule holds here too: after a kill the records may be in the page cache only.
	if !s.lock.Last.CleanClose {
		if err := log.SyncFiles(); err != nil {
			return err
		}
	}
	c.begin(binding.New())
	from := s.state.Seq
	long := memoryLength{file: c.memory}
	rec, err := log.Replay(from, func(r wal.Record) error {
		if err := checkRecord(r, c.state, guest.MaxPages(&s.guest.Code().Info)); err != nil {
			return err
		}
		if err := long.reach(r.WasmPages); err != nil {
			return err
		}
		return c.apply(r)
	})
	if err != nil {
		return err
	}
	if err := Unexplained(s.lock.Last, rec); err != nil {
		return fmt.Errorf("%w: %w", wal.ErrCorrupt, err)
	}
	if rec.Records > 0 {
		if err := guest.CheckShape(&s.guest.Code().Info, c.state); err != nil {
			return err
		}
		if err := c.publish(); err != nil {
			return err
		}
		s.counters.recovered = rec.LastSeq - from
		s.opts.Logger.Info("recovered", "state", s.dir, "from", from, "to", rec.LastSeq)
	}
	s.state = delta.Clone(c.state)
	return log.Reset(rec.LastSeq)
}

// Unexplained is an error if the log breaks off and that cannot be what a power cut has left.
func Unexplained(last statedir.LastExit, rec wal.Recovery) error {
	if !rec.Torn || !last.CacheIntact {
		return nil
	}
	return fmt.Errorf("commit %d and those behind it cannot be read, and no power cut has come "+
		"between that would explain it (the log goes on up to commit "+
		"%d)", rec.LastSeq+1, rec.SeenSeq)
}

// memoryLength makes a memory file as long as the records that are about to be applied want it.
type memoryLength struct {
	file  vfs.File // nil without a memory
	pages uint32   // up to which the file is known to reach
}

func (m *memoryLength) reach(wasmPages uint32) error {
	if m.file == nil || wasmPages <= m.pages {
		return nil
	}
	size, err := m.file.Size()
	end := int64(wasmPages) * mmapmem.WasmPageSize
	if err == nil && size < end {
		err = m.file.Truncate(end)
	}
	if err == nil {
		m.pages = wasmPages
	}
	return err
}

// settleContinuous brings the state that was read to what the event word and the file say, and
// removes what a conversion that did not finish has left.
func (s *Store) settleContinuous(sidecar *globalsfile.File, memory vfs.File, torn bool) error {
	seq, _ := sidecar.Event()
	s.state.Seq = max(s.state.Seq, seq)
	for _, name := range append([]string{statedir.ChecksumsName}, statedir.WALNames...) {
		if err := s.opts.FS.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fileError(s.dir, err)
		}
	}
	if torn && memory != nil {
		err := takeTornMemory(memory, s.state, guest.MaxPages(&s.guest.Code().Info))
		if err != nil {
			return fileError(s.dir, err)
		}
	}
	return fitMemoryFile(s.dir, memory, s.state)
}

func (s *Store) openContinuous(sidecar *globalsfile.File, memory vfs.File, torn bool) error {
	if err := s.mapMemory(memory, mmapmem.Shared); err != nil {
		return err
	}
	if memory != nil && sidecar.SyncFailed() {
		if err := vfs.Rewrite(memory, math.MaxInt64); err != nil {
			return fileError(s.dir, err)
		}
	}
	boot := s.opts.BootID()
	if torn {
		// Taken as it is: from here on this is the state, of this boot of the machine. Until it
		// has been written, whoever opens it must be told that it is torn.
		if err := sidecar.WriteSlot(s.state); err != nil {
			return fileError(s.dir, err)
		}
		if err := sidecar.SetClean(false, boot); err != nil {
			return fileError(s.dir, err)
		}
	}
	sidecar.EndEvent(s.state.Seq)
	s.keep = &continuousKeeper{core: &s.core, gate: s.gate, memory: memory, sidecar: sidecar,
		boot: boot, clean: sidecar.Header().Clean}
	return nil
}
