package mmrun

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/wal"
)

// atomicKeeper keeps a state in Atomic mode: the guest runs on a private mapping, a commit is one
// record in the wal, and checkpoints fold the wal into the files.
//
// The invariant that all of it rests on: a page whose newest committed bytes are not in the
// memory file is hot, that is private to the process. So the file can be written behind the
// guest's back, and a page may be evicted only when a finished fold has covered its last change.
type atomicKeeper struct {
	in     *Instance
	wal    *wal.Log
	folder *folder

	record wal.Commit
	small  delta.Encoder
	ranges []wal.Range

	running *fold  // the fold in progress or just finished, nil if none
	folded  uint64 // seq up to which every commit is in the files

	// A commit's stores to the wal are page faults where the segment has not been stored to since
	// it was begun or synced. The fault counter must not take those for the guest's.
	used   int64       // bytes in the active segment, about
	synced atomic.Bool // since the last commit

	timer    *time.Timer // of SyncEvery
	timerSet atomic.Bool
}

const (
	// idleCommits is how many commits a hot page must have come through unchanged before it is
	// evicted: about as many comparisons (0.12 µs) as an eviction and the fault that brings
	// the page back (5 µs) cost.
	idleCommits = 40
	// privatePages is how many pages may have shadows, 64 MiB of them, before a checkpoint starts
	// so that some can be evicted.
	privatePages = 16384
	// mostPrivatePages, 512 MiB of shadows, is where events wait for checkpoint and eviction: they
	// dirty pages faster than the disk takes them.
	mostPrivatePages = 131072
	// freshPages is how many pages one event may add to the hot ones. The pages of an event that
	// makes more are folded into the file within the event and get no shadows, so that it needs
	// no more memory than the guest itself has asked for.
	freshPages = 8192
	// evictBatch bounds the pause that evictions put into one commit.
	evictBatch = 1024
)

func (k *atomicKeeper) begin() error { return nil }
func (k *atomicKeeper) view() bool   { return true }

// commit makes the present state the one that recovery brings back.
func (k *atomicKeeper) commit() error {
	in := k.in
	seq := in.state.Seq + 1
	if err := k.prepare(seq); err != nil {
		return err
	}
	alone := in.mem != nil && in.mem.FreshPages() > freshPages
	size := wal.RecordSize(&k.record)
	if size > k.wal.Free() {
		large, err := k.makeRoom(size)
		if err != nil {
			return err
		}
		alone = alone || large
	}
	if err := k.wal.Append(&k.record); err != nil {
		return k.checkWAL(err)
	}
	const machinePage = 4096
	faulted := k.synced.Load() && k.synced.Swap(false) || k.used/machinePage != (k.used+size)/machinePage
	k.used += size
	// From here on a kill brings back this commit.
	if err := k.small.Apply(in.state); err != nil {
		return in.poisonWith(err)
	}
	in.state.Seq, in.state.MemoryPages = seq, k.record.WasmPages
	in.guest.settled()
	if in.mem != nil {
		if err := k.keepPages(seq, alone); err != nil {
			return in.poisonWith(err)
		}
	}
	// Only now: what this event wrote to a page that had come to rest is nowhere but in the page
	// until the record holds it, and an evicted page forgets it.
	if k.running != nil && k.running.finished() {
		if err := k.evict(); err != nil {
			return in.poisonWith(err)
		}
	}
	if err := k.syncCommit(); err != nil {
		return err
	}
	if in.mem != nil && (faulted || in.opts.sync.always) {
		in.mem.FaultsAreOurs()
	}
	return nil
}

// prepare fills k.record with what the event changed.
func (k *atomicKeeper) prepare(seq uint64) error {
	in := k.in
	if err := in.guest.capture(in.state, &k.small); err != nil {
		return err
	}
	if in.tx.metaSet {
		k.small.Meta(in.state.Meta, in.tx.meta)
	}
	// Before the append: what is acknowledged can be kept by the next checkpoint.
	if err := k.small.CheckFits(in.state); err != nil {
		return fmt.Errorf("state %s: %w", in.dir, err)
	}
	k.record = wal.Commit{Seq: seq, Small: k.small.Bytes()}
	if in.mem == nil {
		return nil
	}
	changes, err := in.mem.Changes()
	if err != nil {
		return in.poisonWith(err)
	}
	k.ranges = k.ranges[:0]
	for _, r := range changes {
		k.ranges = append(k.ranges, wal.Range(r))
	}
	k.record.Ranges = k.ranges
	k.record.Memory = in.mem.Bytes()
	k.record.WasmPages = in.guest.pages()
	return nil
}

// keepPages makes the memory's present bytes the reference for the next commit. If alone, the
// record was the last in its segment, and it is folded here and now. An error is one after which
// the instance cannot go on; a checkpoint that fails for want of room is tried again later.
func (k *atomicKeeper) keepPages(seq uint64, alone bool) error {
	mem := k.in.mem
	if alone {
		err := k.foldActive()
		if err == nil {
			err = k.wait()
		}
		if err == nil {
			return mem.CommittedToFile(seq)
		}
		if k.in.poison.Load() != nil {
			return err
		}
	}
	mem.Committed(seq)
	if mem.PrivatePages() > mostPrivatePages {
		return k.evictAll(seq)
	}
	crowded := mem.PrivatePages() > privatePages && seq-k.folded >= idleCommits
	if k.running == nil && (crowded || mem.Idle()) {
		if err := k.foldActive(); err != nil && k.in.poison.Load() != nil {
			return err
		}
	}
	return nil
}

// evictAll makes all pages cold, now. Without room on the disk that is put off.
func (k *atomicKeeper) evictAll(seq uint64) error {
	err := k.foldActive()
	if err == nil {
		err = k.wait()
	}
	if err == nil {
		_, err = k.in.mem.Evict(seq, seq, 0, mostPrivatePages*2)
		return err
	}
	if k.in.poison.Load() != nil {
		return err
	}
	return nil
}

// makeRoom goes on in the other segment. A record larger than a segment gets one grown for it.
func (k *atomicKeeper) makeRoom(size int64) (large bool, err error) {
	if err := k.foldActive(); err != nil {
		return false, err
	}
	if size <= k.wal.Free() {
		return false, nil
	}
	if err := k.wal.Reserve(size); err != nil {
		return false, k.checkWAL(fmt.Errorf("commit of %d bytes: %w", size, err))
	}
	return true, nil
}

// checkWAL poisons the instance if the wal is of no more use.
func (k *atomicKeeper) checkWAL(err error) error {
	if errors.Is(err, wal.ErrFailed) {
		return k.in.poisonWith(err)
	}
	return fmt.Errorf("state %s: %w", k.in.dir, err)
}

// foldActive seals the active segment and starts to fold it. It waits for an earlier fold; if that
// failed for a reason that may pass, such as a full disk, it is tried once more.
func (k *atomicKeeper) foldActive() error {
	if err := k.wait(); err != nil {
		return err
	}
	if err := k.wal.Switch(); err != nil {
		return k.checkWAL(err)
	}
	if sealed := k.wal.Sealed(); sealed != nil {
		k.running = k.folder.start(sealed)
	}
	k.used = 0
	k.synced.Store(true) // another segment
	return nil
}

// wait waits for the fold in progress. After it returned nil there is none, and no sealed
// segment. It evicts nothing: it may be called between Changes and Committed.
func (k *atomicKeeper) wait() error {
	if k.running == nil {
		return nil
	}
	f := k.running
	err := f.wait()
	if err != nil && !final(err) {
		if sealed := k.wal.Sealed(); sealed != nil {
			f = k.folder.start(sealed)
			k.running = f
			err = f.wait()
		}
	}
	switch {
	case final(err):
		return k.in.poisonWith(err)
	case err != nil:
		return fmt.Errorf("state %s: checkpoint: %w", k.in.dir, err)
	}
	k.folded = f.last
	k.running = nil
	k.in.counters.checkpoints++
	return nil
}

// evict takes note of a finished fold and makes pages cold that it has put into the file. A
// failed fold stays where it is until its segment is needed.
func (k *atomicKeeper) evict() error {
	if err := k.running.wait(); err != nil {
		if final(err) {
			return err
		}
		return nil
	}
	if mem := k.in.mem; mem != nil {
		more, err := mem.Evict(k.running.last, k.in.state.Seq, idleCommits, evictBatch)
		if err != nil || more {
			return err
		}
	}
	return k.wait()
}

// syncCommit does what the sync policy asks for after a commit.
func (k *atomicKeeper) syncCommit() error {
	switch p := k.in.opts.sync; {
	case p.always:
		if err := k.wal.Sync(); err != nil {
			return k.in.poisonWith(err)
		}
	case p.every > 0 && !k.timerSet.Load():
		k.timerSet.Store(true)
		if k.timer == nil {
			k.timer = time.AfterFunc(p.every, k.syncInBackground)
		} else {
			k.timer.Reset(p.every)
		}
	}
	return nil
}

func (k *atomicKeeper) syncInBackground() {
	// Cleared first: a commit that is made during the sync gets one of its own.
	k.timerSet.Store(false)
	if err := k.wal.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) {
		_ = k.in.poisonWith(err)
	}
	k.synced.Store(true)
}

// sync needs no lock: the wal can be synced while events append to it.
func (k *atomicKeeper) sync() error {
	defer k.synced.Store(true)
	switch err := k.wal.Sync(); {
	case errors.Is(err, fs.ErrClosed):
		return k.in.closedError()
	case err != nil:
		return k.in.poisonWith(err)
	}
	return nil
}

// abort is rollback.
func (k *atomicKeeper) abort() error {
	in := k.in
	if in.mem != nil {
		if err := in.mem.Rollback(uint64(in.state.MemoryPages) * mmapmem.WasmPageSize); err != nil {
			return err
		}
	}
	if in.guest.pages() == in.state.MemoryPages && !in.guest.closed() && in.guest.restorable(in.state) {
		return in.guest.restoreGlobals(in.state)
	}
	// What has grown cannot shrink, what was closed cannot be opened again, and what was
	// dropped cannot be brought back: a new guest over the same memory has none of that behind it.
	if err := in.guest.close(); err != nil {
		return err
	}
	if err := in.guest.instantiate(); err != nil {
		return err
	}
	return in.guest.restore(in.state)
}

// seal starts a checkpoint, unless one is under way: that one has to be waited for first, and the
// lock is not held for that long.
func (k *atomicKeeper) seal() (wait func() error, sealed bool, err error) {
	if sealed = k.running == nil || k.running.finished(); sealed {
		if err := k.foldActive(); err != nil {
			return nil, false, err
		}
	}
	f := k.running
	return func() error {
		if f == nil {
			return nil // there was nothing to fold
		}
		err := f.wait()
		if final(err) {
			return k.in.poisonWith(err)
		}
		if err != nil {
			return fmt.Errorf("state %s: checkpoint: %w", k.in.dir, err)
		}
		return nil
	}, sealed, nil
}

func (k *atomicKeeper) close() error {
	if k.timer != nil {
		k.timer.Stop()
	}
	if k.running != nil {
		_ = k.running.wait()
	}
	if k.in.poison.Load() != nil {
		return nil
	}
	if err := k.foldActive(); err != nil {
		return err
	}
	return k.wait()
}

func (k *atomicKeeper) stats(s *Stats) {
	s.WALBytes = k.wal.Written()
	s.WALUsed = k.wal.Used()
	if mem := k.in.mem; mem != nil {
		s.Tracker = mem.Tracker()
		s.HotPages, s.PrivatePages = mem.HotPages(), mem.PrivatePages()
	}
}
