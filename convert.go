package mmrun

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// A conversion makes the files of the new mode first, then changes the mode in the header, then
// removes the files of the old mode. The header is the switch: a crash before it leaves a state
// of the old mode, with files that its next opening removes or makes anew.

var errNotClean = errors.New("it was not closed cleanly (open and close it once in the mode it has)")

func (in *Instance) conversionError(err error) error {
	return asKind(ErrUnsupported, fmt.Errorf("state %s: cannot be converted to %s mode: %w", in.dir, in.mode, err))
}

// toContinuous turns an atomic state without anything in its wal into a continuous one.
func (in *Instance) toContinuous(sidecar *globalsfile.File, memory vfs.File) error {
	j, err := in.openWAL()
	if err != nil {
		return err
	}
	rec, err := j.Replay(in.state.Seq, func(wal.Record) error { return errNotClean })
	switch {
	case errors.Is(err, errNotClean):
		return in.conversionError(errNotClean)
	case err != nil:
		return in.fileError(err)
	case rec.Records > 0 || rec.Torn:
		return in.conversionError(errNotClean)
	}
	if err := in.fitMemory(memory); err != nil {
		return err
	}
	h := sidecar.Header()
	h.Mode, h.Clean, h.BootID = globalsfile.Continuous, true, in.opts.bootID()
	sidecar.EndEvent(in.state.Seq)
	if err := sidecar.SetHeader(h); err != nil {
		return in.fileError(err)
	}
	if err := in.settleContinuous(sidecar, memory, false); err != nil {
		return err
	}
	return in.openContinuous(sidecar, memory, false)
}

// toAtomic turns a continuous state that was closed cleanly into an atomic one. It reads the
// whole memory once, for the checksums of its pages.
func (in *Instance) toAtomic(sidecar *globalsfile.File, memory vfs.File) error {
	if !sidecar.Header().Clean {
		return in.conversionError(errNotClean)
	}
	j, err := wal.Create(in.opts.fs, in.dir, in.opts.walSize/2, in.state.Seq)
	if err != nil {
		return in.fileError(err)
	}
	if err := j.Close(); err != nil {
		return in.fileError(err)
	}
	if memory != nil {
		if err := in.writeSums(memory); err != nil {
			return in.fileError(err)
		}
	}
	if err := in.opts.fs.SyncDir(in.dir); err != nil {
		return in.fileError(err)
	}
	if err := sidecar.WriteSlot(in.state); err != nil {
		return in.fileError(err)
	}
	h := sidecar.Header()
	h.Mode = globalsfile.Atomic
	return sidecar.SetHeader(h)
}

func (in *Instance) writeSums(memory vfs.File) error {
	f, err := in.opts.fs.OpenFile(filepath.Join(in.dir, statedir.ChecksumsName), os.O_RDWR|os.O_CREATE|os.O_TRUNC, statedir.FilePerm)
	if err != nil {
		return err
	}
	sums := mmapmem.NewSums(f)
	err = sums.Build(memory, uint64(in.state.MemoryPages)*mmapmem.WasmPageSize)
	if err == nil {
		err = sums.Sync()
	}
	return errors.Join(err, f.Close())
}
