// Package wal is the redo log of commits: a commit is one record that holds everything it
// changed, and what was appended is found again, in order and whole, after the process was
// killed or the power failed.
//
// # Files
//
// Two segment files, wal.0 and wal.1, are preallocated and mapped shared. An append is
// a memory copy into the mapping: no system call, no allocation, and no way to run out of disk.
// One segment is active and takes appends. When it is full, [Log.Switch] seals it and goes
// on in the other; the caller folds the sealed one into its own files, then releases it.
// The format of a segment's header is drawn in header.go, that of a record in record.go.
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

// Log is an open wal. One goroutine at a time may call Append, Switch, Reserve and
// Reset; Sync and the methods of [Sealed] may run on other goroutines meanwhile.
type Log struct {
	dir  string
	size int64 // standard size of a segment file, in bytes

	// syncMu is held by whoever syncs a file, so that syncs happen one after the other.
	// It is taken before mu, which is never held during a sync of Sync or Sealed.
	syncMu sync.Mutex

	mu       sync.Mutex
	segments [2]*segment
	active   *segment
	sealed   *segment // nil: the segment that is not active is free
	durable  uint64   // commits up to this one are synced here or folded by the caller
	written  uint64
	ready    bool // Create or Reset has been done
	closed   bool
	failed   error
	newSalt  func() uint64
}

// Create makes a wal of two segments of size bytes each in dir, empty, with base as the
// sequence number of the last commit before it. Files of the same names are overwritten. All
// of it is durable when Create returns.
func Create(fsys vfs.FS, dir string, size int64, base uint64) (*Log, error) {
	j, err := openFiles(fsys, dir, size, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	if err := j.Reset(base); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	if err := fsys.SyncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("wal: %w", err), j.Close())
	}
	return j, nil
}

// Open opens the wal in dir for [Log.Replay]; nothing is written until
// [Log.Reset]. Files of any content and length are accepted: damage is reported by Replay
// and [Log.Report]. The segments get size bytes each at Reset.
func Open(fsys vfs.FS, dir string, size int64) (*Log, error) {
	j, err := openFiles(fsys, dir, size, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	for _, s := range j.segments {
		if err := s.scan(); err != nil {
			return nil, errors.Join(err, j.Close())
		}
	}
	return j, nil
}

func openFiles(fsys vfs.FS, dir string, size int64, flag int) (*Log, error) {
	if size < MinSize || size > maxSize {
		return nil, fmt.Errorf("wal: segment size %d is not in [%d, %d]", size, int64(MinSize), int64(maxSize))
	}
	j := &Log{dir: dir, size: size &^ 7, newSalt: randomSalt}
	for i, name := range []string{"wal.0", "wal.1"} {
		s, err := openSegment(fsys, filepath.Join(dir, name), flag)
		if err != nil {
			return nil, errors.Join(err, j.Close())
		}
		j.segments[i] = s
	}
	return j, nil
}

func randomSalt() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// usable is nil when the wal takes commits. It is called with mu held.
func (j *Log) usable() error {
	switch {
	case j.closed:
		return fmt.Errorf("wal %s: %w", j.dir, fs.ErrClosed)
	case j.failed != nil:
		return j.failed
	case !j.ready:
		return errNotReset
	}
	return nil
}

// fail remembers the first failure for good: after a failed sync the kernel may have dropped the
// dirty pages and marked them clean, so a later sync that succeeds proves nothing.
// It is called with mu held.
func (j *Log) fail(cause error) error {
	if j.failed == nil {
		j.failed = fmt.Errorf("wal %s: %w: %w", j.dir, ErrFailed, cause)
	}
	return j.failed
}

// Append adds c to the active segment. After it returns nil the commit survives a kill of the
// process; it survives a power cut after the next Sync. The error is [ErrFull] when the segment
// has no room: then Switch and, for a commit larger than a segment, Reserve, make some.
// Append changes nothing when it returns an error, and does not allocate.
func (j *Log) Append(c *Commit) error {
	size, inside := measure(c)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if c.Seq != j.active.last+1 {
		return fmt.Errorf("wal %s: commit %d appended after commit %d", j.dir, c.Seq, j.active.last)
	}
	if !inside {
		return fmt.Errorf("wal %s: commit %d: a range lies outside of the memory of %d bytes", j.dir, c.Seq, len(c.Memory))
	}
	s := j.active
	if size > s.free() {
		return ErrFull
	}
	if !s.begun {
		s.begin(j.freshSalt(s), j.durable)
	}
	s.append(c, size, j.durable)
	j.written += uint64(size)
	return nil
}

// freshSalt is a salt whose part in the checksums differs from that of the segment's life
// before, so that a record left from it cannot be valid behind the same predecessor.
func (j *Log) freshSalt(s *segment) uint64 {
	for {
		salt := j.newSalt()
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
func (j *Log) Sync() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	err := j.usable()
	var todo [2]unsynced
	if err == nil {
		if j.sealed != nil {
			todo[0] = j.sealed.unsynced()
		}
		todo[1] = j.active.unsynced()
	}
	j.mu.Unlock()
	for _, u := range todo {
		if err == nil {
			err = j.sync(u)
		}
	}
	return err
}

// unsynced is a part of a segment's life that may not be on the disk yet.
type unsynced struct {
	seg  *segment // nil: all is synced
	tail int64
	last uint64
}

func (s *segment) unsynced() unsynced {
	if !s.begun || s.synced == s.tail {
		return unsynced{}
	}
	return unsynced{s, s.tail, s.last}
}

// sync is called with syncMu held, which Release takes, too: so the segment that u is about is
// not begun anew meanwhile, which would be synced before the one that it then follows.
func (j *Log) sync(u unsynced) error {
	if u.seg == nil {
		return nil
	}
	err := u.seg.file.Sync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return j.fail(err)
	}
	u.seg.synced = u.tail
	j.durable = max(j.durable, u.last)
	if u.seg.tail == u.tail {
		u.seg.putEndMark(j.durable) // it tells from now on how far this sync went
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
// overwritten held only commits that its release had declared folded for good.
func (j *Log) Switch() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	if !j.active.begun {
		return nil
	}
	if j.sealed != nil {
		return ErrBusy
	}
	old, next := j.active, j.other(j.active)
	next.prepare(old.last, link{salt: old.header.salt, end: old.tail, chain: old.chain})
	j.sealed, j.active = old, next
	return nil
}

func (j *Log) other(s *segment) *segment {
	if s == j.segments[0] {
		return j.segments[1]
	}
	return j.segments[0]
}

// Reserve makes sure that a record of n bytes ([RecordSize]) fits into the active segment,
// which is grown if need be. That needs an empty segment: call Switch before. An error for want
// of disk space leaves the wal as it was. The segment gets its standard size back at release.
func (j *Log) Reserve(n int64) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.usable(); err != nil {
		return err
	}
	s := j.active
	switch {
	case n <= s.free():
		return nil
	case n > maxSize-headerSize:
		return fmt.Errorf("wal %s: a record of %d bytes is larger than a segment can be (%d bytes)", j.dir, n, int64(maxSize))
	case s.begun:
		return fmt.Errorf("%w: %s holds records, switch before growing it", ErrBusy, s.file.Name())
	}
	return j.resize(s, headerSize+n+endMarkSize, false)
}

// resize changes the file of an idle segment. A failure that leaves the segment without a
// mapping, or with an unknown content on the disk, ends the wal; another leaves all as it was.
// It is called with syncMu and mu held.
func (j *Log) resize(s *segment, size int64, zero bool) error {
	err := s.resize(size, zero)
	if err != nil && (s.mapping == nil && s.fileSize >= headerSize || errors.Is(err, errSync)) {
		return j.fail(err)
	}
	return err
}

// Reset empties the wal for good: base is the sequence number of the last commit, and
// nothing that is in the segments will be replayed again. Call it when all that Replay gave is
// durable elsewhere, or at a clean end.
//
// It is the only place where a sequence number may be used a second time, after a power cut
// that took commits away. That is why both segments are durably empty before it returns: a
// leftover of the lost commits must never be taken for the continuation of the new ones. A crash
// half way leaves segments whose records are all folded or cannot be reached.
func (j *Log) Reset(base uint64) error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return fmt.Errorf("wal %s: %w", j.dir, fs.ErrClosed)
	}
	if j.failed != nil {
		return j.failed
	}
	j.ready = false
	for _, s := range j.segments {
		// First the header, then the length: a header that promises more bytes than the file
		// has is reported as damage.
		resize := int64(len(s.mapping)) != j.size || s.fileSize != j.size
		if s.mapping != nil {
			s.putIdle(base)
			err := error(nil)
			if resize {
				err = s.writeAgain(headerBytes) // see SyncFiles: it may have been idle in the page cache only
			}
			if err == nil {
				err = s.file.Sync()
			}
			if err != nil {
				return j.fail(err)
			}
		}
		if resize {
			if err := j.resize(s, j.size, true); err != nil {
				return err
			}
			s.putIdle(base)
			if err := s.file.Sync(); err != nil {
				return j.fail(err)
			}
		}
		s.prepare(base, link{})
	}
	j.active, j.sealed, j.durable, j.ready = j.segments[0], nil, base, true
	return nil
}

// Close unmaps and closes the files. It does not sync. No method of a Sealed may be running.
func (j *Log) Close() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	var errs []error
	for _, s := range j.segments {
		if s != nil {
			s.mapping = nil
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(errs...)
}

// LastSeq is the sequence number of the last commit appended, or the base of the last Reset;
// 0 between Open and Reset.
func (j *Log) LastSeq() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active == nil {
		return 0
	}
	return j.active.last
}

// Size is the standard size of a segment file, in bytes.
func (j *Log) Size() int64 { return j.size }

// Used is the number of bytes that records take in the active segment.
func (j *Log) Used() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active == nil || !j.active.begun {
		return 0
	}
	return j.active.tail - headerSize
}

// Free is the size of the largest record that fits into the active segment.
func (j *Log) Free() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active == nil || j.closed {
		return 0
	}
	return j.active.free()
}

// Written is the number of bytes of all records appended since Create or Open.
func (j *Log) Written() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.written
}
