package mmrun

import (
	"fmt"
	"time"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/disk"
)

// continuousKeeper keeps a state in Continuous mode: the guest's stores go to the memory file's
// page cache at once, and the globals follow at the end of each event. The sidecar's event word
// says whether the two belong together.
type continuousKeeper struct {
	in      *Instance
	memory  disk.File // nil without a memory
	sidecar *globalsfile.File
	boot    [16]byte
	clean   bool // the header on the disk says so
	small   []byte
	timer   *time.Timer
	waiting bool // a sync by the timer is due
}

func (k *continuousKeeper) view() bool { return false }

// begin marks the state as inside an event before the guest's first store.
func (k *continuousKeeper) begin() error {
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
	if err := k.keep(); err != nil {
		return k.in.poisonWith(err)
	}
	return k.syncByPolicy()
}

// syncByPolicy does what the sync policy asks for after an event.
func (k *continuousKeeper) syncByPolicy() error {
	p := &k.in.opts.sync
	if *p == SyncNever {
		return nil
	}
	if p.always {
		return k.syncLocked()
	}
	if !k.waiting {
		k.waiting = true
		k.timer = time.AfterFunc(p.every, k.syncByTimer)
	}
	return nil
}

func (k *continuousKeeper) keep() error {
	in := k.in
	seq, pages := in.state.Seq+1, in.guest.pages()
	if in.tx.metaSet || !in.guest.numbersOnly(in.state) {
		if err := k.keepAll(seq, pages); err != nil {
			return err
		}
	} else if in.guest.update(in.state) || pages != in.state.MemoryPages {
		in.state.Seq, in.state.MemoryPages = seq, pages
		if !k.sidecar.StoreGlobals(pages, in.state.Globals) {
			if err := k.sidecar.WriteSlot(in.state); err != nil {
				return err
			}
		}
	}
	in.state.Seq = seq
	k.sidecar.EndEvent(seq)
	return nil
}

// keepAll writes a small state of which more than numeric globals has changed, or could have.
func (k *continuousKeeper) keepAll(seq uint64, pages uint32) error {
	in := k.in
	var err error
	if k.small, err = in.guest.capture(in.state, k.small[:0]); err != nil {
		return err
	}
	if in.tx.metaSet {
		k.small = appendMeta(k.small, in.tx.meta)
	}
	in.guest.settled()
	if len(k.small) == 0 && pages == in.state.MemoryPages {
		return nil
	}
	if err := applyDelta(in.state, k.small); err != nil {
		return err
	}
	in.state.Seq, in.state.MemoryPages = seq, pages
	return k.sidecar.WriteSlot(in.state)
}

// abort keeps what the failed event left behind: there is nothing to go back to.
func (k *continuousKeeper) abort() error {
	if err := k.keep(); err != nil {
		return err
	}
	if k.in.guest.closed() {
		// The guest has ended itself. A new one goes on with the same state.
		if err := k.in.guest.instantiate(); err != nil {
			return err
		}
		if err := k.in.guest.restore(k.in.state); err != nil {
			return err
		}
	}
	// What a failed event has stored is kept like that of any other. Not synced, it would
	// make the whole state torn for a power cut.
	return k.syncByPolicy()
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
