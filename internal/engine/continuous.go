package engine

import (
	"context"
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
	*core
	gate    *gate
	memory  vfs.File // nil without a memory
	sidecar *globalsfile.File
	boot    [16]byte
	clean   bool // the header on the disk says so
	small   delta.Encoder
	timer   *time.Timer
	// waiting tells that a sync by the timer is due, released that the files are being closed.
	waiting, released bool
}

func (k *continuousKeeper) rollsBack() bool { return false }

// begin marks the state as inside an event before the guest's first store.
func (k *continuousKeeper) begin() error {
	if seq := k.state.Seq; seq >= globalsfile.MaxSeq {
		return fmt.Errorf("state %s: commit %d was the last one: %w", k.dir, seq,
			globalsfile.ErrTooLarge)
	}
	if k.clean {
		// Durable before the first store that could reach the disk: otherwise a power cut
		// could find new pages under a header that says nothing was written.
		if err := k.sidecar.SetClean(false, k.boot); err != nil {
			return k.poisonWith(err)
		}
		k.clean = false
	}
	k.sidecar.BeginEvent(k.state.Seq + 1)
	return nil
}

// commit writes the small state if it has changed and marks the state as outside of an event.
// If that fails the mark stays: memory has moved on and the globals have not.
func (k *continuousKeeper) commit(x Extras) error {
	k.phase = keeping
	seq, pages := k.state.Seq+1, k.guest.Pages()
	if x.MetaSet || len(x.Kept) > 0 || !k.guest.NumbersAlone() && !k.guest.NumbersOnly(k.state) {
		err := k.keepAll(seq, pages, x)
		if errors.Is(err, globalsfile.ErrTooLarge) && (x.MetaSet || len(x.Kept) > 0) {
			// What the guest has done is kept without the host's part, by abort.
			return fmt.Errorf("state %s: %w", k.dir, err)
		}
		if err != nil {
			return k.poisonWith(err)
		}
	} else if k.guest.Update(k.state) || pages != k.state.MemoryPages {
		k.state.MemoryPages = pages
		if !k.sidecar.StoreGlobals(pages, k.state.Globals) {
			k.state.Seq = seq
			if err := k.sidecar.WriteSlot(k.state); err != nil {
				return k.poisonWith(err)
			}
		}
	}
	k.state.Seq = seq
	k.sidecar.EndEvent(seq)
	return k.syncByPolicy()
}

// syncByPolicy does what the sync policy asks for after an event. A continuous state can be synced
// at quiescent points only.
func (k *continuousKeeper) syncByPolicy() error {
	switch {
	case k.opts.SyncAlways:
		return k.syncQuiet()
	case k.opts.SyncEvery > 0 && !k.waiting:
		k.waiting = true
		k.timer = time.AfterFunc(k.opts.SyncEvery, k.syncByTimer)
	}
	return nil
}

// keepAll writes a small state of which more than numeric globals has changed, or could have.
func (k *continuousKeeper) keepAll(seq uint64, pages uint32, x Extras) error {
	if err := captureSmall(k.guest, k.state, x, &k.small); err != nil {
		return err
	}
	k.guest.Settled()
	if len(k.small.Bytes()) == 0 && pages == k.state.MemoryPages {
		return nil
	}
	k.metaMu.Lock()
	err := k.small.Apply(k.state)
	k.metaMu.Unlock()
	if err != nil {
		return err
	}
	k.state.Seq, k.state.MemoryPages = seq, pages
	return k.sidecar.WriteSlot(k.state)
}

// abort keeps what the failed event left behind, like that of any other: there is nothing to go
// back to.
func (k *continuousKeeper) abort() error {
	if err := k.commit(Extras{}); err != nil || !k.guest.Closed() {
		return err
	}
	return k.guest.Renew(k.state) // it has ended itself
}

func (k *continuousKeeper) syncByTimer() {
	_ = k.gate.enter(context.Background())
	defer k.gate.leave()
	k.waiting = false
	if k.poison.Load() == nil && !k.released {
		_ = k.syncQuiet()
	}
}

// sync waits for a quiescent point.
func (k *continuousKeeper) sync(ctx context.Context) error {
	if err := k.gate.enter(ctx); err != nil {
		return fmt.Errorf("state %s: not synced: %w", k.dir, err)
	}
	defer k.gate.leave()
	if k.released {
		return k.closedError()
	}
	if err := k.poisoned(); err != nil {
		return err
	}
	return k.syncQuiet()
}

// waitDurable has nothing to wait for: commit has synced.
func (k *continuousKeeper) waitDurable(uint64) error { return nil }

// syncQuiet makes memory and sidecar durable together and says so in the header. The header
// comes last: it vouches for the rest.
func (k *continuousKeeper) syncQuiet() error {
	if k.clean {
		return nil
	}
	if err := k.syncFiles(); err != nil {
		k.sidecar.SetSyncFailed(true)
		return k.poisonWith(fmt.Errorf("sync: %w", err))
	}
	k.clean = true
	return nil
}

func (k *continuousKeeper) syncFiles() error {
	if k.memory != nil {
		if err := k.memory.Sync(); err != nil {
			return err
		}
	}
	k.sidecar.SetSyncFailed(false)
	if err := k.sidecar.WriteSlot(k.state); err != nil {
		return err
	}
	if err := k.sidecar.Sync(); err != nil {
		return err
	}
	return k.sidecar.SetClean(true, k.boot)
}

func (k *continuousKeeper) seal() (func() error, bool, error) {
	err := k.syncQuiet()
	return func() error { return nil }, true, err
}

func (k *continuousKeeper) release() {
	k.released = true
	if k.timer != nil {
		k.timer.Stop()
	}
}

func (k *continuousKeeper) close() error {
	k.release()
	if k.poison.Load() != nil {
		return nil
	}
	return k.syncQuiet()
}

func (k *continuousKeeper) stats(s *Stats) { s.Tracker = "none" }
