// Package wal is the redo log of commits: a commit is one record that holds everything it
// changed, and what was appended is found again, in order and whole, after the process was
// killed or the power failed.
//
// # Files
//
// Two segment files, wal.0 and wal.1, are mapped shared, and kept without a descriptor. Their
// blocks are there before anything is stored to them. So an append is a memory copy into the
// mapping: no system call, no allocation, and no way to run out of disk. One segment is active and
// takes appends. When it is full, [Log.Switch] seals it and goes on in the other; the caller
// checkpoints the sealed one, that is puts it into its own files, then releases it. The format of
// a segment's header is drawn in header.go, that of a record in record.go.
//
// A segment begins with 32 KiB. One that was full gets twice the size of the larger of the two
// when it is released, up to the full size given to [Create]. Only a commit larger than that makes
// one grow further, and then until it is released.
//
// # What survives
//
// Process killed: every store made before the kill is in the page cache, in the order it was
// made. So all records whose Append returned are found, and at most one more.
//
// Power cut: any subset of the 512-byte sectors written since the last sync may be on the disk.
// The records found are a prefix of those appended, no shorter than the last [Log.Sync].
//
// # Life of a wal
//
// [Create] or [Open], [Log.Replay], [Log.Reset]; then Append, Sync, Switch and, on
// another goroutine, [Sealed.Sync], [Sealed.Replay] and [Sealed.Release].
package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/mmrun/mmrun/vfs"
)

var (
	// ErrFull: the active segment has no room for the record. Nothing was changed.
	ErrFull = errors.New("wal: segment full")
	// ErrBusy: the sealed segment has not been released yet, or the active one is not empty.
	ErrBusy = errors.New("wal: segment in use")
	// ErrCorrupt: records that had been made durable are damaged or missing.
	ErrCorrupt = errors.New("wal: damaged")
	// ErrFailed: a sync failed once. What is on the disk is unknown from then on, so nothing
	// is acknowledged any more.
	ErrFailed = errors.New("wal: failed by an earlier error")

	errNotReset = errors.New("wal: opened but not reset: replay it, then reset it")
)

// Commit is what one record holds.
type Commit struct {
	Seq       uint64  // one more than that of the commit before
	WasmPages uint32  // memory size at the commit; opaque to the wal
	Small     []byte  // small state changed by the commit; opaque to the wal
	Memory    []byte  // the image that Ranges point into
	Ranges    []Range // what changed in Memory
}

// Range is the part [Offset, Offset+Len) of a memory image, in bytes.
type Range struct {
	Offset, Len uint32
}

// Log is an open wal. One goroutine at a time may call Append, Switch, Reserve, Faults and
// Reset; Sync and the methods of [Sealed] may run on other goroutines meanwhile.
type Log struct {
	dir   string
	size  int64 // full size of a segment file, in bytes
	first int64 // that of a new one, if it is not less

	// Locks are taken in this order. sizeMu is held by whoever gives a file another size; syncMu
	// by whoever syncs records, so that syncs happen one after the other; mu is never held during
	// a sync of Sync or Sealed.
	sizeMu sync.Mutex
	syncMu sync.Mutex

	mu       sync.Mutex
	segments [2]*segment
	active   *segment
	sealed   *segment // nil: the segment that is not active is free
	durable  uint64   // commits up to this one are synced here or checkpointed by the caller
	written  uint64
	ready    bool // Create or Reset has been done
	closed   bool
	failed   error
	newSalt  func() uint64
}

var segmentNames = [2]string{"wal.0", "wal.1"}

func newLog(fsys vfs.FS, dir string, size int64) (*Log, error) {
	if size < MinSize || size > maxSize {
		return nil, fmt.Errorf("wal: segment size %d is not in [%d, %d]",
			size, int64(MinSize), int64(maxSize))
	}
	l := &Log{dir: dir, size: size &^ 7, first: firstSize, newSalt: randomSalt}
	for i, name := range segmentNames {
		l.segments[i] = &segment{fsys: fsys, path: filepath.Join(dir, name)}
	}
	return l, nil
}

// Create makes a wal in dir, empty, with base as the sequence number of the last commit before
// it. size is the full size of each of the two segments in bytes; the files begin smaller. Files
// of the same names are overwritten. All of it is durable when Create returns.
func Create(fsys vfs.FS, dir string, size int64, base uint64) (*Log, error) {
	l, err := newLog(fsys, dir, size)
	if err != nil {
		return nil, err
	}
	if err := l.create(fsys, base); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Log) create(fsys vfs.FS, base uint64) error {
	if err := l.resetTo(base, os.O_RDWR|os.O_CREATE|os.O_TRUNC); err != nil {
		return err
	}
	if err := fsys.SyncDir(l.dir); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// Open reads the wal in dir for [Log.Replay]; nothing is written until [Log.SyncFiles] or
// [Log.Reset]. Files of any content and length are accepted: damage is reported by Replay
// and [Log.Report]. The error is [ErrVersion] for a format that this program does not know.
//
// The segments keep the full size that they were created with. size is for a wal that does not
// tell it any more.
func Open(fsys vfs.FS, dir string, size int64) (*Log, error) {
	l, err := newLog(fsys, dir, size)
	if err != nil {
		return nil, err
	}
	if err := l.read(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Log) read() error {
	for _, s := range l.segments {
		if err := s.read(); err != nil {
			return err
		}
		if s.found.header.full != 0 {
			l.size = s.found.header.full &^ 7
		}
	}
	return nil
}

func randomSalt() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// usable is nil when the wal takes commits. It is called with mu held.
func (l *Log) usable() error {
	switch {
	case l.closed:
		return fmt.Errorf("wal %s: %w", l.dir, fs.ErrClosed)
	case l.failed != nil:
		return l.failed
	case !l.ready:
		return errNotReset
	}
	return nil
}

// fail remembers the first failure for good: after a failed sync the kernel may have dropped the
// dirty pages and marked them clean, so a later sync that succeeds proves nothing.
// It is called with mu held.
func (l *Log) fail(cause error) error {
	if l.failed == nil {
		l.failed = fmt.Errorf("wal %s: %w: %w", l.dir, ErrFailed, cause)
	}
	return l.failed
}

// Append adds c to the active segment. After it returns nil the commit survives a kill of the
// process; it survives a power cut after the next Sync. The error is [ErrFull] when the segment
// has no room: then Switch and, for a commit larger than a segment, Reserve, make some. It is
// [ErrTooLarge] when no segment can hold it.
// Append changes nothing when it returns an error, and does not allocate.
func (l *Log) Append(c *Commit) error {
	size, inside := measure(c)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if c.Seq != l.active.last+1 {
		return fmt.Errorf("wal %s: commit %d appended after commit %d", l.dir, c.Seq, l.active.last)
	}
	if !inside || size > MaxRecord || c.Seq > MaxSeq {
		return fmt.Errorf("wal %s: %w", l.dir, refusal(c, size, inside))
	}
	s := l.active
	if size > s.free() {
		return ErrFull
	}
	if !s.begun {
		s.begin(l.freshSalt(s), l.durable)
	}
	s.append(c, size, l.durable)
	l.written += uint64(size)
	return nil
}

// freshSalt is a salt whose part in the checksums differs from that of the segment's generation
// before, so that a record left from it cannot be valid behind the same predecessor.
func (l *Log) freshSalt(s *segment) uint64 {
	for {
		salt := l.newSalt()
		if salt != 0 && mix(salt) != mix(s.header.salt) {
			return salt
		}
	}
}

// Sync makes all commits appended before the call durable. It does nothing when they are.
//
// The sealed segment is synced before the active one: the records of the active segment are
// worth nothing without those before them. Every record notes up to which commit all was
// durable when it was written, which is how damage is told from a torn tail.
func (l *Log) Sync() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	err := l.usable()
	var todo [2]unsynced
	if err == nil {
		if l.sealed != nil {
			todo[0] = l.sealed.unsynced()
		}
		todo[1] = l.active.unsynced()
	}
	l.mu.Unlock()
	for _, u := range todo {
		if err == nil {
			err = l.sync(u)
		}
	}
	return err
}

// unsynced is a part of a segment's generation that may not be on the disk yet.
type unsynced struct {
	seg     *segment // nil: all is synced
	mapping vfs.Mapping
	tail    int64
	last    uint64
}

func (s *segment) unsynced() unsynced {
	if !s.begun || s.synced == s.tail {
		return unsynced{}
	}
	return unsynced{s, s.mapping, s.tail, s.last}
}

// sync is called with syncMu held, which Release takes, too: so the segment that u is about is
// not begun anew meanwhile, which would be synced before the one that it then follows, and its
// mapping stays.
func (l *Log) sync(u unsynced) error {
	if u.seg == nil {
		return nil
	}
	err := u.mapping.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.fail(err)
	}
	u.seg.warmth.cool(u.tail)
	u.seg.synced = u.tail
	l.durable = max(l.durable, u.last)
	if u.seg.tail == u.tail {
		u.seg.putEndMark(l.durable) // it tells from now on how far this sync went
	}
	return nil
}

// Switch seals the active segment and goes on in the other one; [ErrBusy] when that has not been
// released. It does nothing when the active segment is empty.
//
// Nothing needs to be synced here. The new segment's header, written with its first record,
// names the salt, the end and the last checksum of the sealed one. If a power cut keeps the new
// segment and tears the sealed one, the two no longer fit together and the new one is not
// replayed; and Sync never syncs the new one before the sealed one. The free segment that is
// overwritten held only commits that its release had declared durable elsewhere.
func (l *Log) Switch() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if !l.active.begun {
		return nil
	}
	if l.sealed != nil {
		return ErrBusy
	}
	old, next := l.active, l.other(l.active)
	before := link{salt: old.header.salt, end: old.tail, chain: old.chain}
	next.prepare(old.last, before, l.size)
	l.sealed, l.active = old, next
	return nil
}

func (l *Log) other(s *segment) *segment {
	if s == l.segments[0] {
		return l.segments[1]
	}
	return l.segments[0]
}

// Reserve makes sure that a record of n bytes ([RecordSize]) fits into the active segment,
// which is grown if need be. That needs an empty segment: call Switch before. An error, for want
// of disk space or another one but for that of a sync, leaves the wal as it was. A segment that is
// grown beyond its full size gets that back at release.
func (l *Log) Reserve(n int64) error {
	l.sizeMu.Lock()
	defer l.sizeMu.Unlock()
	l.mu.Lock()
	err := l.usable()
	s := l.active
	switch {
	case err != nil:
	case n <= s.free():
		l.mu.Unlock()
		return nil
	case n > MaxRecord:
		err = fmt.Errorf("wal %s: %w: a record of %d bytes, the largest has %d",
			l.dir, ErrTooLarge, n, int64(MaxRecord))
	case s.begun:
		err = fmt.Errorf("%w: %s holds records, switch before growing it", ErrBusy, s.path)
	}
	size := max(l.segments[0].size(), l.segments[1].size())
	l.mu.Unlock()
	if err != nil {
		return err
	}
	want := headerSize + n
	if want > l.size {
		return l.grow(s, min(pageUp(want+endMarkSize), maxSize), false)
	}
	for size < want {
		size *= 2
	}
	return l.grow(s, min(size, l.size), true)
}

// Reset empties the wal for good: base is the sequence number of the last commit, and
// nothing that is in the segments will be replayed again. Call it when all that Replay gave is
// durable elsewhere, or at a clean end.
//
// It is the only place where a sequence number may be used a second time, after a power cut
// that took commits away. That is why both segments are durably empty before it returns: a
// leftover of the lost commits must never be taken for the continuation of the new ones. A crash
// half way leaves segments whose records are all checkpointed or cannot be reached.
func (l *Log) Reset(base uint64) error { return l.resetTo(base, os.O_RDWR) }

func (l *Log) resetTo(base uint64, flag int) error {
	l.sizeMu.Lock()
	defer l.sizeMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	err := l.failed
	if l.closed {
		err = fmt.Errorf("wal %s: %w", l.dir, fs.ErrClosed)
	}
	if base > MaxSeq {
		err = fmt.Errorf("wal %s: commit %d: the largest sequence number is %d",
			l.dir, base, uint64(MaxSeq))
	}
	if err == nil {
		l.ready = false
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	for _, s := range l.segments {
		if err := l.reset(s, base, flag); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.found.header.salt != 0 {
			s.header.salt = s.found.header.salt // the next one will differ
		}
		s.prepare(base, link{}, l.size)
		s.found = found{}
	}
	l.active, l.sealed, l.durable, l.ready = l.segments[0], nil, base, true
	return nil
}

// Close gives the mappings back. It does not sync. No method of a Sealed may be running.
func (l *Log) Close() error {
	l.sizeMu.Lock()
	defer l.sizeMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return errors.Join(l.segments[0].setMapping(nil), l.segments[1].setMapping(nil))
}
