package mmrun

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// stateView is the small state of a directory as somebody may read it who does not own it: without
// a lock, a mapping or a change.
type stateView struct {
	dir     string
	sidecar globalsfile.Report

	slot  *globalsfile.State // as of the last checkpoint
	state *globalsfile.State // as of the last commit that could be read

	module    []byte // nil if it cannot be read
	moduleErr error
	info      rewriter.Info
	fits      bool // the module is that of the state, and info and slot have the same shape

	wal      *wal.View // nil in Continuous mode, and if it cannot be read
	recovery wal.Recovery
	walErr   error

	record func(wal.Record) // told of each record behind the slot, may be nil
}

// problem is the first reason for which Open would refuse the state.
func (v *stateView) problem() error { return cmp.Or(v.moduleErr, v.walErr) }

// readState reads sidecar, module and wal. An error means that there is no small state to show.
func readState(fsys vfs.FS, dir string, record func(wal.Record)) (*stateView, error) {
	v := &stateView{dir: dir, record: record}
	place := &Instance{dir: dir} // for messages
	// The wal is read first: what a checkpoint puts into the slot meanwhile is in the wal
	// as well, the other way round it might be missing from both.
	view, walErr := wal.Inspect(fsys, dir)
	var err error
	v.slot, v.sidecar, err = globalsfile.Inspect(fsys, filepath.Join(dir, globalsName))
	if err != nil {
		return v, place.fileError(err)
	}
	v.state = delta.Clone(v.slot)
	if v.moduleErr = v.readModule(); v.moduleErr != nil {
		v.moduleErr = place.fileError(v.moduleErr)
	}
	if Mode(v.sidecar.Header.Mode) == Continuous {
		v.settleContinuous()
		return v, nil
	}
	if v.wal = view; walErr == nil {
		v.recovery, walErr = view.Replay(v.slot.Seq, v.apply)
		if walErr == nil && v.fits {
			walErr = (&guest{info: v.info}).checkShape(v.state)
		}
	}
	if walErr != nil {
		v.walErr = place.fileError(walErr)
	}
	return v, nil
}

// settleContinuous takes the number of the last commit from the event page: an event that changed
// memory alone leaves the slot as it was.
func (v *stateView) settleContinuous() {
	last := v.sidecar.EventSeq
	if v.sidecar.InEvent && last > 0 {
		last--
	}
	v.state.Seq = max(v.state.Seq, last)
}

func (v *stateView) readModule() error {
	wasm, err := os.ReadFile(filepath.Join(v.dir, moduleName))
	if err != nil {
		return err
	}
	v.module = wasm
	if got := sha256.Sum256(wasm); got != v.sidecar.Header.Module {
		return asKind(ErrCorrupt, fmt.Errorf("%s has SHA-256 %x, the state was created by %x", moduleName, got, v.sidecar.Header.Module))
	}
	if _, v.info, err = rewriter.Rewrite(wasm); err != nil {
		return fmt.Errorf("%s: %w", moduleName, err)
	}
	if err := (&guest{info: v.info}).checkShape(v.slot); err != nil {
		return err
	}
	v.fits = true
	return nil
}

// maxPages is the most that the memory can have grown to, in wasm pages.
func (v *stateView) maxPages() uint32 {
	switch {
	case !v.fits:
		return mmapmem.MaxWasmPages
	case v.info.Memory == nil:
		return 0
	}
	return (&guest{info: v.info}).maxPages()
}

// apply brings the small state forward by a record of the wal. What it refuses, recovery refuses.
func (v *stateView) apply(r wal.Record) error {
	if r.WasmPages < v.state.MemoryPages || r.WasmPages > v.maxPages() {
		return fmt.Errorf("%w: commit %d has a memory of %d wasm pages", wal.ErrCorrupt, r.Seq, r.WasmPages)
	}
	end := uint64(r.WasmPages) * mmapmem.WasmPageSize
	for offset, data := range r.Ranges() {
		if uint64(offset)+uint64(len(data)) > end {
			return fmt.Errorf("%w: commit %d writes behind its memory", wal.ErrCorrupt, r.Seq)
		}
	}
	if err := delta.Apply(v.state, r.Small); err != nil {
		return fmt.Errorf("commit %d: %w", r.Seq, err)
	}
	v.state.Seq, v.state.MemoryPages = r.Seq, r.WasmPages
	if v.record != nil {
		v.record(r)
	}
	return nil
}
