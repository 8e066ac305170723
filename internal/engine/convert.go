package engine

import (
	"errors"
	"fmt"
	"os"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// A conversion makes the files of the new mode first, then changes the mode in the header, then
// removes the files of the old mode. The header is the switch: a crash before it leaves a state
// of the old mode, with files that its next opening removes or makes anew.

var errNotClean = errors.New(
	"it was not closed cleanly (open and close it once in the mode it has)")

func (s *Store) conversionError(to globalsfile.Mode, err error) error {
	return errs.As(errs.ErrUnsupported, fmt.Errorf(
		"state %s: cannot be converted to %s mode: %w", s.dir, to, err))
}

// toContinuous turns an atomic state without anything in its log into a continuous one.
func (s *Store) toContinuous(sidecar *globalsfile.File, memory vfs.File) error {
	log, err := s.openLog()
	if err != nil {
		return err
	}
	rec, err := log.Replay(s.state.Seq, func(wal.Record) error { return errNotClean })
	switch {
	case errors.Is(err, errNotClean):
		return s.conversionError(Continuous, errNotClean)
	case err != nil:
		return fileError(s.dir, err)
	case rec.Records > 0 || rec.Torn:
		return s.conversionError(Continuous, errNotClean)
	}
	if err := fitMemoryFile(s.dir, memory, s.state); err != nil {
		return err
	}
	h := sidecar.Header()
	h.Mode, h.Clean, h.BootID = Continuous, true, s.opts.BootID()
	sidecar.EndEvent(s.state.Seq)
	if err := sidecar.SetHeader(h); err != nil {
		return fileError(s.dir, err)
	}
	return s.settleContinuous(sidecar, memory, false)
}

// toAtomic turns a continuous state that was closed cleanly into an atomic one. It reads the
// whole memory once, for the checksums of its pages.
func (s *Store) toAtomic(sidecar *globalsfile.File, memory vfs.File) error {
	if !sidecar.Header().Clean {
		return s.conversionError(Atomic, errNotClean)
	}
	log, err := wal.Create(s.opts.FS, s.dir, s.opts.WALSize/2, s.state.Seq)
	if err != nil {
		return fileError(s.dir, err)
	}
	if err := log.Close(); err != nil {
		return fileError(s.dir, err)
	}
	s.state.Binding = binding.New()
	if memory != nil {
		if err := s.writeChecksums(memory); err != nil {
			return fileError(s.dir, err)
		}
	}
	if err := s.opts.FS.SyncDir(s.dir); err != nil {
		return fileError(s.dir, err)
	}
	// The slot before the header: it says which checkpoint the checksums are of.
	if err := errors.Join(sidecar.WriteSlot(s.state), sidecar.Sync()); err != nil {
		return fileError(s.dir, err)
	}
	h := sidecar.Header()
	h.Mode = Atomic
	return sidecar.SetHeader(h)
}

func (s *Store) writeChecksums(memory vfs.File) error {
	flags := os.O_RDWR | os.O_CREATE | os.O_TRUNC
	f, err := s.opts.FS.OpenFile(s.path(statedir.ChecksumsName), flags, statedir.FilePerm)
	if err != nil {
		return err
	}
	sums := pagefile.NewChecksums(func() (vfs.File, error) { return f, nil })
	err = sums.Build(memory, uint64(s.state.MemoryPages)*mmapmem.WasmPageSize,
		binding.Stamp{Seq: s.state.Seq, Checkpoint: s.state.Binding})
	if err == nil {
		err = sums.Sync()
	}
	return errors.Join(err, f.Close())
}
