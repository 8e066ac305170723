package mmrun

import (
	"errors"
	"fmt"
	"time"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/vfs"
)

// continuousKeeper keeps a state in Continuous mode: the guest's stores go to the memory file's
// page cache at once, and the globals follow at the end of each event. The sidecar's event word
// says whether the two belong together.
type continuousKeeper struct {
	in      *Instance
	memory  vfs.File // nil without a memory
	sidecar *globalsfile.File
	boot    [16]byte
	clean   bool // the header on the disk says so
	small   delta.Encoder
	timer   *time.Timer
	waiting bool // a sync by the timer is due
}

func (k *continuousKeeper) view() bool { return false }

// begin marks the state as inside an event before the guest's first store.
func (k *continuousKeeper) begin() error {
	if seq := k.in.state.Seq; seq >= globalsfile.MaxSeq {
		return fmt.Errorf("state %s: commit %d was the last one: %w", k.in.dir, seq,
			globalsfile.ErrTooLarge)
	}
	if k.clean {
		// Durable before the first store that could reach the disk: otherwise a power cut
		// could find new pages under a header that says nothing was written.
		if err := k.sidecar.SetClean(false, k.boot); err != nil {
			return k.in.poisonWith(err)
		}
		k.clean = false
	}
	k.sidecar.BeginEvent(k.in.state.Seq + 1)
	return nil
}

// commit writes the small state if it has changed and marks the state as outside of an event.
// If that fails the mark stays: memory has moved on and the globals have not.
func (k *continuousKeeper) commit() error {
	in := k.in
	seq, pages := in.state.Seq+1, in.guest.pages()
	if in.tx.metaSet || !in.guest.numbers && !in.guest.numbersOnly(in.state) {
		if err := k.keepAll(seq, pages); errors.Is(err, globalsfile.ErrTooLarge) && in.tx.metaSet {
			// What the guest has done is kept without the metadata, by abort.
			return fmt.Errorf("state %s: %w", in.dir, err)
		} else if err != nil {
			return in.poisonWith(err)
		}
	} else if in.guest.update(in.state) || pages != in.state.MemoryPages {
		in.state.MemoryPages = pages
		if !k.sidecar.StoreGlobals(pages, in.state.Globals) {
			in.state.Seq = seq
			if err := k.sidecar.WriteSlot(in.state); err != nil {
				return in.poisonWith(err)
			}
		}
	}
	in.state.Seq = seq
	k.sidecar.EndEvent(seq)
	if in.opts.sync == SyncNever {
		return nil
	}
	return k.syncByPolicy()
}

// syncByPolicy does what the sync policy asks for after an event.
func (k *continuousKeeper) syncByPolicy() error {
	if p := k.in.opts.sync; p.always {
		return k.syncLocked()
	} else if !k.waiting {
		k.waiting = true
		k.timer = time.AfterFunc(p.every, k.syncByTimer)
	}
	return nil
}

// keepAll writes a small state of which more than numeric globals has changed, or could have.
func (k *continuousKeeper) keepAll(seq uint64, pages uint32) error {
	in := k.in
	if err := in.guest.capture(in.state, &k.small); err != nil {
		return err
	}
	if in.tx.metaSet {
		k.small.Meta(in.state.Meta, in.tx.meta)
	}
	if err := k.small.CheckFits(in.state); err != nil {
		return err
	}
	in.guest.settled()
	if len(k.small.Bytes()) == 0 && pages == in.state.MemoryPages {
		return nil
	}
	if err := k.small.Apply(in.state); err != nil {
		return err
	}
	in.state.Seq, in.state.MemoryPages = seq, pages
	return k.sidecar.WriteSlot(in.state)
}

// abort keeps what the failed event left behind, like that of any other: there is nothing to go back to.
func (k *continuousKeeper) abort() error {
	if err := k.commit(); err != nil || !k.in.guest.closed() {
		return err
	}
	// The guest has ended itself. A new one goes on with the same state.
	if err := k.in.guest.instantiate(); err != nil {
		return err
	}
	return k.in.guest.restore(k.in.state)
}

func (k *continuousKeeper) syncByTimer() {
	k.in.mu.Lock()
	defer k.in.mu.Unlock()
	k.waiting = false
	if k.in.usable() == nil {
		_ = k.syncLocked()
	}
}

// sync waits for a quiescent point.
func (k *continuousKeeper) sync() error {
	k.in.mu.Lock()
	defer k.in.mu.Unlock()
	if err := k.in.usable(); err != nil {
		return err
	}
	return k.syncLocked()
}

// syncLocked makes memory and sidecar durable together and says so in the header. The header
// comes last: it vouches for the rest.
func (k *continuousKeeper) syncLocked() error {
	if k.clean {
		return nil
	}
	err := func() error {
		if k.memory != nil {
			if err := k.memory.Sync(); err != nil {
				return err
			}
		}
		k.sidecar.SetSyncFailed(false)
		if err := k.sidecar.WriteSlot(k.in.state); err != nil {
			return err
		}
		if err := k.sidecar.Sync(); err != nil {
			return err
		}
		return k.sidecar.SetClean(true, k.boot)
	}()
	if err != nil {
		k.sidecar.SetSyncFailed(true)
		return k.in.poisonWith(fmt.Errorf("sync: %w", err))
	}
	k.clean = true
	return nil
}

func (k *continuousKeeper) seal() (func() error, bool, error) {
	err := k.syncLocked()
	return func() error { return nil }, true, err
}

func (k *continuousKeeper) close() error {
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.in.poison.Load() != nil {
		return nil
	}
	return k.syncLocked()
}

func (k *continuousKeeper) stats(s *Stats) { s.Tracker = "none" }
