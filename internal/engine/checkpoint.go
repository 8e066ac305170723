package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// checkpointer brings the files of an atomic state forward: records of the log go in, page images,
// page checksums and a globals slot come out. It works from the records alone and never looks at
// the running guest. One run at a time.
type checkpointer struct {
	dir     string
	memory  vfs.File            // nil without a memory
	sums    *pagefile.Checksums // nil without a memory
	sidecar *globalsfile.File
	logger  *slog.Logger
	history History           // nil if none is kept
	patcher *pagefile.Patcher // nil without a memory

	state *globalsfile.State // the small state, as of the last record that has reached it
	// applied is the last record that has been applied whole. The small state is one record ahead
	// of it after a failure.
	applied uint64

	// number is that of the checkpoint under way, slotNumber that of the one in the slot
	// (internal/binding).
	number, slotNumber uint64
}

// newCheckpointer starts from the small state of the newest slot. Without a memory, the files for
// it are nil.
func newCheckpointer(dir string, sidecar *globalsfile.File, slot *globalsfile.State,
	memory vfs.File, sums *pagefile.Checksums, logger *slog.Logger) *checkpointer {
	c := &checkpointer{dir: dir, sidecar: sidecar, logger: logger, state: delta.Clone(slot),
		applied: slot.Seq, slotNumber: slot.Binding}
	if memory != nil {
		c.memory, c.sums = memory, sums
		c.patcher = pagefile.NewPatcher(memory, sums)
	}
	return c
}

// checkpointRun is one checkpoint under way.
type checkpointRun struct {
	last uint64 // seq of the last commit it covers
	done chan struct{}
	err  error
}

func (r *checkpointRun) finished() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

func (r *checkpointRun) wait() error {
	<-r.done
	return r.err
}

// start brings the files forward by a sealed segment, in the background, as the checkpoint of a
// number. One that has failed is tried again with the same number.
func (c *checkpointer) start(sealed *wal.Sealed, number uint64) *checkpointRun {
	c.begin(number)
	r := &checkpointRun{last: sealed.LastSeq(), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		start, pages := time.Now(), c.written()
		if r.err = c.run(sealed); r.err != nil {
			c.logger.Error("checkpoint failed", "state", c.dir, "error", r.err)
			return
		}
		c.logger.Debug("checkpoint", "state", c.dir, "seq", r.last,
			"pages", c.written()-pages, "took", time.Since(start))
	}()
	return r
}

// begin gives the checkpoint that is about to be made its number.
func (c *checkpointer) begin(number uint64) {
	c.number = number
	if c.patcher != nil && c.sums != nil {
		c.patcher.Stamp = binding.Stamp{Checkpoint: number, Before: c.slotNumber}
	}
}

func (c *checkpointer) written() int64 {
	if c.patcher == nil {
		return 0
	}
	return c.patcher.Pages
}

func (c *checkpointer) run(sealed *wal.Sealed) error {
	if c.sums != nil {
		defer c.sums.Release()
	}
	// The write-ahead rule: no byte of the memory file changes before the record that holds
	// it is on the disk. Without this sync a power cut could keep the change, lose the record
	// and with it the rest of the event.
	if err := sealed.Sync(); err != nil {
		return fmt.Errorf("%w: %w", pagefile.ErrSync, err)
	}
	if err := sealed.Replay(c.apply); err != nil {
		return err
	}
	if err := c.publish(); err != nil {
		return err
	}
	return sealed.Release()
}

// apply puts one record into the page images and the small state. A run that has failed is done
// again from its first record on. Then pages are written once more, which is as good as once; but
// what a record says of the small state is a difference to the one before, and is used once.
func (c *checkpointer) apply(r wal.Record) error {
	if r.Seq > c.state.Seq {
		// First, since it refuses a record that must not be used.
		if err := applySmall(c.state, r); err != nil {
			return err
		}
	}
	if c.history != nil {
		c.history.Add(r)
	}
	if c.patcher != nil {
		c.stamp(r)
		for offset, data := range r.Ranges() {
			if err := c.patcher.Patch(uint64(offset), data); err != nil {
				return err
			}
		}
	}
	c.applied = r.Seq
	return nil
}

// stamp tells the patcher what the checksums are to say of themselves, before any page of the
// record can be written.
func (c *checkpointer) stamp(r wal.Record) {
	s := &c.patcher.Stamp
	if s.Checkpoint == 0 {
		return // no checksums are kept, or they are built anew
	}
	s.Seq = r.Seq
	if s.Stretch == 0 { // the first record behind the slot has it
		_, s.Stretch = delta.Binding(r.Small)
	}
}

// publish makes the files durable as of the records applied.
func (c *checkpointer) publish() error {
	if c.history != nil { // before the segment is released
		if err := c.history.Flush(); err != nil {
			c.logger.Error("the history does not go on", "state", c.dir, "error", err)
		}
	}
	if c.patcher != nil {
		if err := c.patcher.Flush(); err != nil {
			return err
		}
		// Pages must be on the disk before the slot that counts on them: recovery skips the
		// records that a slot covers.
		if err := c.memory.Sync(); err != nil {
			return fmt.Errorf("%w: %w", pagefile.ErrSync, err)
		}
	}
	c.state.Binding = c.number
	if err := c.sidecar.WriteSlot(c.state); err != nil {
		return err
	}
	// And the slot before the segment is released: its records are overwritten then.
	if err := c.sidecar.Sync(); err != nil {
		return fmt.Errorf("%w: %w", pagefile.ErrSync, err)
	}
	c.slotNumber = c.number
	return nil
}

// isPermanent tells whether an error of a checkpoint is one that trying again cannot mend: a failed
// sync, a damaged page, or a file that cannot be used any more.
func isPermanent(err error) bool {
	return errors.Is(err, pagefile.ErrSync) || errors.Is(err, pagefile.ErrChecksum) ||
		errors.Is(err, wal.ErrCorrupt) || errors.Is(err, wal.ErrFailed) ||
		errors.Is(err, globalsfile.ErrFailed)
}
