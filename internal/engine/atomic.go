package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/wal"
)

// atomicKeeper keeps a state in Atomic mode: the guest runs on a private mapping, a commit is one
// record in the log, and checkpoints bring the files forward from the log.
//
// The invariant that all of it rests on: a page whose newest committed bytes are not in the
// memory file is private to the process and has a shadow. So the file can be written behind the
// guest's back, and a page may be evicted only when a finished checkpoint has covered its last
// change.
type atomicKeeper struct {
	*core
	log        *wal.Log
	checkpoint *checkpointer

	record wal.Commit
	small  delta.Encoder
	ranges []wal.Range
	// pending is what the event has changed in the memory, from collect to keepPages.
	pending mmapmem.Pending

	running *checkpointRun // in progress or just finished, nil if none
	number  uint64         // of the newest checkpoint, in progress or done

	// stretch is the number of the log's stretch that the next commit begins; 0 if one has begun
	// it.
	stretch uint64

	group syncGroup // of commits that wait to be durable

	meter *meter
	kept  []Change // of the commit that is being made

	timer    *time.Timer // of SyncEvery
	timerSet atomic.Bool
}

func (k *atomicKeeper) begin() error {
	k.meter.begin()
	return nil
}

func (k *atomicKeeper) rollsBack() bool { return true }

// commit makes the present state the one that recovery brings back.
func (k *atomicKeeper) commit(x Extras) error {
	k.meter.collecting()
	if hint, due := k.meter.due(); due {
		k.kept = append(append(k.kept[:0], hint), x.Kept...)
		x.Kept = k.kept
	}
	seq := k.state.Seq + 1
	if err := k.collect(seq, x); err != nil {
		return err
	}
	// The pages of an event that changes very many go to the file within the event and get no
	// shadows, so that it needs no more memory than the guest itself has asked for.
	alone := k.mem != nil && k.pending.TooMany()
	size := wal.RecordSize(&k.record)
	if size+delta.BindingSize > k.log.Free() {
		large, err := k.makeRoom(size + delta.BindingSize)
		if err != nil {
			return err
		}
		alone = alone || large
	}
	if k.stretch != 0 {
		k.small.Binding(k.number, k.stretch)
		k.record.Small = k.small.Bytes()
	}
	k.phase = keeping
	faults := k.log.Faults()
	if err := k.log.Append(&k.record); err != nil {
		return k.checkLog(err)
	}
	k.stretch = 0
	// The fault counter of a tracker must not take the log's page faults for the guest's.
	faulted := k.log.Faults() != faults
	// From here on a kill brings back this commit.
	if err := k.adopt(seq, x.MetaSet); err != nil {
		return k.poisonWith(err)
	}
	if k.mem != nil {
		if err := k.keepPages(seq, alone, faulted); err != nil {
			return k.poisonWith(err)
		}
	}
	if k.opts.SyncEvery > 0 && !k.timerSet.Load() {
		k.setTimer()
	}
	k.meter.committed(len(k.ranges))
	return nil
}

// collect fills k.record with what the event changed.
func (k *atomicKeeper) collect(seq uint64, x Extras) error {
	if err := captureSmall(k.guest, k.state, x, &k.small); err != nil {
		return fmt.Errorf("state %s: %w", k.dir, err)
	}
	k.record = wal.Commit{Seq: seq, Small: k.small.Bytes()}
	if k.mem == nil {
		return nil
	}
	var err error
	if k.pending, err = k.mem.Changes(); err != nil {
		return k.poisonWith(err)
	}
	k.ranges = k.ranges[:0]
	for _, r := range k.pending.Ranges() {
		k.ranges = append(k.ranges, wal.Range(r))
	}
	k.record.Ranges = k.ranges
	k.record.Memory = k.mem.Bytes()
	k.record.WasmPages = k.guest.Pages()
	return nil
}

// adopt makes the collected small state that of the last commit.
func (k *atomicKeeper) adopt(seq uint64, metaSet bool) error {
	if metaSet {
		k.metaMu.Lock()
		defer k.metaMu.Unlock()
	}
	if err := k.small.Apply(k.state); err != nil {
		return err // our own encoding
	}
	k.state.Seq, k.state.MemoryPages = seq, k.record.WasmPages
	k.guest.Settled()
	return nil
}

// keepPages makes the memory's present bytes the reference for the next commit. If alone, the
// record was the last in its segment, and the files are brought up to it here and now. An error is
// one after which the instance cannot go on; a checkpoint that fails for want of room is tried
// again later.
func (k *atomicKeeper) keepPages(seq uint64, alone, faulted bool) error {
	if alone {
		err := k.startCheckpoint()
		if err == nil {
			err = k.wait()
		}
		if err == nil {
			return k.pending.KeepInFile(seq)
		}
		if k.poison.Load() != nil {
			return err
		}
	}
	if k.running != nil && k.running.finished() {
		if err := k.noteCheckpoint(); err != nil {
			return err
		}
	}
	if err := k.pending.Keep(seq, faulted); err != nil {
		return err
	}
	if k.running == nil && k.mem.WantsCheckpoint() {
		if err := k.startCheckpoint(); err != nil && k.poison.Load() != nil {
			return err
		}
	}
	return nil
}

// makeRoom goes on in the other segment, which grows if the record needs it. A record is large if
// no segment of full size holds it: it gets one to itself.
func (k *atomicKeeper) makeRoom(size int64) (large bool, err error) {
	if err := k.startCheckpoint(); err != nil {
		return false, err
	}
	if size <= k.log.Free() {
		return false, nil
	}
	if err := k.log.Reserve(size); err != nil {
		return false, k.checkLog(fmt.Errorf("commit of %d bytes: %w", size, err))
	}
	return size > k.log.Largest(), nil
}

// checkLog poisons the instance if the log is of no more use.
func (k *atomicKeeper) checkLog(err error) error {
	if errors.Is(err, wal.ErrFailed) {
		return k.poisonWith(err)
	}
	return fmt.Errorf("state %s: %w", k.dir, err)
}

// abort is rollback.
func (k *atomicKeeper) abort() error {
	if k.mem != nil {
		size := uint64(k.state.MemoryPages) * mmapmem.WasmPageSize
		if err := k.mem.Rollback(size); err != nil {
			return err
		}
	}
	g := k.guest
	if g.Pages() == k.state.MemoryPages && !g.Closed() && g.Restorable(k.state) {
		return g.RestoreGlobals(k.state)
	}
	return g.Renew(k.state)
}

// startCheckpoint seals the active segment and starts to bring the files forward. It waits for an
// earlier run; if that failed for a reason that may pass, such as a full disk, it is tried once
// more.
func (k *atomicKeeper) startCheckpoint() error {
	if err := k.wait(); err != nil {
		return err
	}
	if err := k.log.Switch(); err != nil {
		return k.checkLog(err)
	}
	if sealed := k.log.Sealed(); sealed != nil {
		k.number, k.stretch = binding.New(), binding.New()
		k.running = k.checkpoint.start(sealed, k.number)
	}
	return nil
}

// wait waits for the checkpoint in progress. After it returned nil there is none, and no sealed
// segment.
func (k *atomicKeeper) wait() error {
	if k.running == nil {
		return nil
	}
	run := k.running
	err := run.wait()
	if err != nil {
		k.counters.failures.Add(1)
	}
	if err != nil && !isPermanent(err) {
		if sealed := k.log.Sealed(); sealed != nil {
			run = k.checkpoint.start(sealed, k.number)
			k.running = run
			err = run.wait()
		}
	}
	switch {
	case isPermanent(err):
		return k.poisonWith(err)
	case err != nil:
		return fmt.Errorf("state %s: checkpoint: %w", k.dir, err)
	}
	k.running = nil
	if k.mem != nil {
		k.mem.InFile(run.last)
	}
	k.counters.checkpoints.Add(1)
	return nil
}

// noteCheckpoint takes note of a finished checkpoint, so that pages that it has put into the file
// can be given back. A failed one stays where it is until its segment is needed.
func (k *atomicKeeper) noteCheckpoint() error {
	if err := k.running.wait(); err != nil {
		if isPermanent(err) {
			return err
		}
		return nil
	}
	return k.wait()
}

// waitDurable returns when the commits up to seq survive power loss. One sync serves all who wait
// for it: those who come while it runs are served by the next.
func (k *atomicKeeper) waitDurable(seq uint64) error {
	return k.group.wait(seq, func() (uint64, error) {
		// What is known to be in the log before the sync begins is on the disk after it.
		appended := k.seq.Load()
		return appended, k.syncLog()
	})
}

func (k *atomicKeeper) setTimer() {
	k.timerSet.Store(true)
	if k.timer == nil {
		k.timer = time.AfterFunc(k.opts.SyncEvery, k.syncInBackground)
	} else {
		k.timer.Reset(k.opts.SyncEvery)
	}
}

func (k *atomicKeeper) syncInBackground() {
	// Cleared first: a commit that is made during the sync gets one of its own.
	k.timerSet.Store(false)
	if err := k.log.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) {
		_ = k.poisonWith(err)
	}
}

// sync needs no gate: the log can be synced while events append to it.
func (k *atomicKeeper) sync(context.Context) error { return k.syncLog() }

func (k *atomicKeeper) syncLog() error {
	switch err := k.log.Sync(); {
	case errors.Is(err, fs.ErrClosed):
		return k.closedError()
	case err != nil:
		return k.poisonWith(err)
	}
	return nil
}

// seal starts a checkpoint, unless one is under way: that one has to be waited for first, and the
// gate is not held for that long.
func (k *atomicKeeper) seal() (wait func() error, sealed bool, err error) {
	if sealed = k.running == nil || k.running.finished(); sealed {
		if err := k.startCheckpoint(); err != nil {
			return nil, false, err
		}
	}
	run := k.running
	return func() error {
		if run == nil {
			return nil // there was nothing to bring forward
		}
		err := run.wait()
		if isPermanent(err) {
			return k.poisonWith(err)
		}
		if err != nil {
			return fmt.Errorf("state %s: checkpoint: %w", k.dir, err)
		}
		return nil
	}, sealed, nil
}

func (k *atomicKeeper) release() {
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.running != nil {
		_ = k.running.wait()
	}
}

func (k *atomicKeeper) close() error {
	k.release()
	if k.poison.Load() != nil {
		return nil
	}
	if err := k.startCheckpoint(); err != nil {
		return err
	}
	return k.wait()
}

func (k *atomicKeeper) stats(s *Stats) {
	s.WALBytes = k.log.Written()
	s.WALUsed = k.log.Used()
	if mem := k.mem; mem != nil {
		s.Tracker = mem.Tracker()
		s.ComparedPages, s.PrivatePages = mem.CopiedPages(), mem.HeldPages()
		s.ComparedAll = mem.ComparedAll()
	}
}
