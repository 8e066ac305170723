package engine

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// View is the small state of a directory as somebody may read it who does not own it: without a
// lock, a mapping or a change.
type View struct {
	Dir     string
	Sidecar globalsfile.Report

	Slot  *globalsfile.State // as of the last checkpoint
	State *globalsfile.State // as of the last commit that could be read

	Module    []byte // nil if it cannot be read
	ModuleErr error
	Info      rewriter.Info
	// Fits tells that the module is that of the state, and that Info and Slot have the same shape.
	Fits bool

	WAL      *wal.View // nil in Continuous mode, and if it cannot be read
	Recovery wal.Recovery
	WALErr   error

	record func(wal.Record) // told of each record behind the slot, may be nil
}

// Problem is the first reason for which Open would refuse the state.
func (v *View) Problem() error { return cmp.Or(v.ModuleErr, v.WALErr) }

// Read reads sidecar, module and log. An error means that there is no small state to show; the view
// holds what could be read all the same.
func Read(fsys vfs.FS, dir string, record func(wal.Record)) (*View, error) {
	v := &View{Dir: dir, record: record}
	// The log is read first: what a checkpoint puts into the slot meanwhile is in the log
	// as well, the other way round it might be missing from both.
	view, walErr := wal.Inspect(fsys, dir)
	var err error
	v.Slot, v.Sidecar, err = globalsfile.Inspect(fsys, filepath.Join(dir, statedir.GlobalsName))
	if err != nil {
		return v, fileError(dir, err)
	}
	v.State = delta.Clone(v.Slot)
	if v.ModuleErr = v.readModule(fsys); v.ModuleErr != nil {
		v.ModuleErr = fileError(dir, v.ModuleErr)
	}
	if v.Sidecar.Header.Mode == Continuous {
		v.settleContinuous()
		return v, nil
	}
	if v.WAL = view; walErr == nil {
		v.Recovery, walErr = view.Replay(v.Slot.Seq, v.apply)
		if walErr == nil && v.Fits {
			walErr = guest.CheckShape(&v.Info, v.State)
		}
	}
	if walErr != nil {
		v.WALErr = fileError(dir, walErr)
	}
	return v, nil
}

// settleContinuous takes the number of the last commit from the event page: an event that changed
// memory alone leaves the slot as it was.
func (v *View) settleContinuous() {
	last := v.Sidecar.EventSeq
	if v.Sidecar.InEvent && last > 0 {
		last--
	}
	v.State.Seq = max(v.State.Seq, last)
}

func (v *View) readModule(fsys vfs.FS) (err error) {
	if v.Module, err = statedir.ReadModule(fsys, v.Dir, v.Sidecar.Header.Module); err != nil {
		return err
	}
	if _, v.Info, err = rewriter.Rewrite(v.Module, rewriter.Options{}); err != nil {
		return fmt.Errorf("%s: %w", statedir.ModuleName, err)
	}
	if err := guest.CheckShape(&v.Info, v.Slot); err != nil {
		return err
	}
	v.Fits = true
	return nil
}

// MaxPages is the most that the memory can have grown to, in wasm pages.
func (v *View) MaxPages() uint32 {
	if !v.Fits {
		return mmapmem.MaxWasmPages
	}
	return guest.MaxPages(&v.Info)
}

// apply brings the small state forward by a record of the log.
func (v *View) apply(r wal.Record) error {
	if err := checkRecord(r, v.State, v.MaxPages()); err != nil {
		return err
	}
	if err := applySmall(v.State, r); err != nil {
		return err
	}
	if v.record != nil {
		v.record(r)
	}
	return nil
}

// ModuleOf is the SHA-256 of the module of a state that anybody may own.
func ModuleOf(dir string) (hash [32]byte, err error) {
	if err := statedir.MustExist(dir); err != nil {
		return hash, err
	}
	_, report, err := globalsfile.Inspect(vfs.OS, filepath.Join(dir, statedir.GlobalsName))
	if err != nil {
		return hash, fileError(dir, err)
	}
	return report.Header.Module, nil
}
