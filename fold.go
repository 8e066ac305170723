package mmrun

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// folder brings the files of an atomic state forward: wal records go in, page images, page
// sums and a globals slot come out. It works from the records alone and never looks at the
// running guest. One fold runs at a time.
type folder struct {
	dir     string
	memory  vfs.File // nil without a memory
	sums    *mmapmem.Sums
	sidecar *globalsfile.File
	logger  *slog.Logger
	patcher *mmapmem.Patcher

	state *globalsfile.State // the small state as of the last record applied
	long  bool               // recovery: the memory file has been seen to be as long as that state's memory
}

// fold is one checkpoint under way.
type fold struct {
	last uint64 // seq of the last commit it covers
	done chan struct{}
	err  error
}

func (f *fold) finished() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

func (f *fold) wait() error {
	<-f.done
	return f.err
}

// start folds a sealed segment in the background.
func (fo *folder) start(sealed *wal.Sealed) *fold {
	f := &fold{last: sealed.LastSeq(), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		start := time.Now()
		pages := fo.written()
		if f.err = fo.run(sealed); f.err != nil {
			fo.logger.Error("checkpoint failed", "state", fo.dir, "error", f.err)
			return
		}
		fo.logger.Debug("checkpoint", "state", fo.dir, "seq", f.last, "pages", fo.written()-pages, "took", time.Since(start))
	}()
	return f
}

func (fo *folder) written() int64 {
	if fo.patcher == nil {
		return 0
	}
	return fo.patcher.Pages
}

func (fo *folder) run(sealed *wal.Sealed) error {
	// The write-ahead rule: no byte of the memory file changes before the record that holds
	// it is on the disk. Without this sync a power cut could keep the change, lose the record
	// and with it the rest of the event.
	if err := sealed.Sync(); err != nil {
		return fmt.Errorf("%w: %w", mmapmem.ErrSync, err)
	}
	if err := sealed.Replay(fo.apply); err != nil {
		return err
	}
	if err := fo.publish(); err != nil {
		return err
	}
	return sealed.Release()
}

// apply puts one record into the page images and the small state.
func (fo *folder) apply(r wal.Record) error {
	// First: of a record that a newer program has written, or a damaged one, no part is applied.
	if err := delta.Apply(fo.state, r.Small); err != nil {
		return fmt.Errorf("record %d: %w", r.Seq, err)
	}
	if fo.patcher != nil {
		for offset, data := range r.Ranges() {
			if err := fo.patcher.Patch(uint64(offset), data); err != nil {
				return err
			}
		}
	}
	fo.state.Seq, fo.state.MemoryPages = r.Seq, r.WasmPages
	return nil
}

// publish makes the files durable as of the records applied.
func (fo *folder) publish() error {
	if fo.patcher != nil {
		if err := fo.patcher.Flush(); err != nil {
			return err
		}
		// Pages must be on the disk before the slot that counts on them: recovery skips the
		// records that a slot covers.
		if err := fo.memory.Sync(); err != nil {
			return fmt.Errorf("%w: %w", mmapmem.ErrSync, err)
		}
	}
	if err := fo.sidecar.WriteSlot(fo.state); err != nil {
		return err
	}
	// And the slot before the segment is released: its records are overwritten then.
	if err := fo.sidecar.Sync(); err != nil {
		return fmt.Errorf("%w: %w", mmapmem.ErrSync, err)
	}
	return nil
}

// final tells whether an error of a fold is one that trying again cannot mend: a failed sync, a
// damaged page, or a file that cannot be used any more.
func final(err error) bool {
	return errors.Is(err, mmapmem.ErrSync) || errors.Is(err, mmapmem.ErrSum) || errors.Is(err, wal.ErrCorrupt) ||
		errors.Is(err, wal.ErrFailed) || errors.Is(err, globalsfile.ErrFailed)
}
