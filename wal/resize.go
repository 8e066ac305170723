package wal

import (
	"errors"
	"fmt"
	"os"

	"github.com/mmrun/mmrun/vfs"
)

// A segment begins small and grows while it holds nothing that counts: when its commits have been
// checkpointed, or for a record that has no room. So its size is that of a generation, which the
// header tells, and what recovery relies on never moves under it.

// firstSize is what a segment has at first, in bytes: room for some 400 small records.
const firstSize = 32 << 10

// errSync marks a failed sync inside of an error, the one kind that can not be survived.
var errSync = errors.New("sync failed")

// extend makes a file longer, with blocks for all of it, and durably so: an open header that
// promises bytes must not reach the disk before the file's length does.
//
// With zero, zeros are also written over the new part: fallocate leaves extents marked as
// unwritten, and each sync of a record would then have to change extents, too, which takes a
// transaction of the file system. A segment that is grown for one large record does without.
func extend(f vfs.File, from, to int64, zero bool) error {
	// A store to the mapping that finds no block is a SIGBUS, which nothing can catch.
	if err := f.Allocate(from, to-from); err != nil {
		return err
	}
	if zero {
		if err := writeZeros(f, from, to); err != nil {
			return err
		}
	}
	return syncFile(f)
}

func syncFile(f vfs.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", errSync, err)
	}
	return nil
}

// zeroChunk is how much is zeroed by one write, and so the size of the folios that the kernel
// keeps the file in. A store to a clean page makes the whole folio dirty, and the next sync writes
// all of it: with 256 KiB a synced append ran at 0.7 of the rate of a bare pwrite and fdatasync,
// with 64 KiB at 0.9, with 4 KiB at 1.0 (BenchmarkAppendSync, Linux 6.18, ext4).
const zeroChunk = 4 << 10

func writeZeros(f vfs.File, from, to int64) error {
	zeros := make([]byte, zeroChunk)
	for at := from; at < to; {
		n, err := f.WriteAt(zeros[:min(zeroChunk-at%zeroChunk, to-at)], at)
		if err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// open opens the segment's file for do and closes it again.
func (s *segment) open(flag int, do func(f vfs.File) error) error {
	f, err := s.fsys.OpenFile(s.path, flag, vfs.FilePerm)
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	if err := errors.Join(do(f), f.Close()); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// grow gives a segment without live records more room: other goroutines have no use for it, but
// may look at its size. A failure leaves it as it is, but for a failed sync.
func (l *Log) grow(s *segment, size int64, zero bool) error {
	err := s.open(os.O_RDWR, func(f vfs.File) error {
		if size > s.fileSize {
			err := extend(f, s.fileSize, size, zero)
			if err != nil && !errors.Is(err, errSync) {
				// The blocks behind the end are given back.
				return errors.Join(err, f.Truncate(s.fileSize))
			}
			if err != nil {
				return err
			}
			s.fileSize = size
		}
		m, err := f.MapShared(size)
		if err != nil {
			return err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return s.setMapping(m)
	})
	return l.failedSync(err)
}

// cutBack gives a segment without live records that was grown for one record its full size again.
// Its header is durably idle before: an open header that promises more bytes than the file has is
// reported as damage.
func (l *Log) cutBack(s *segment, base uint64) error {
	err := s.open(os.O_RDWR, func(f vfs.File) error {
		if err := l.writeIdle(f, base); err != nil {
			return err
		}
		if err := s.setMapping(nil); err != nil {
			return err
		}
		if err := f.Truncate(l.size); err != nil {
			return err
		}
		if err := syncFile(f); err != nil {
			return err
		}
		s.fileSize = l.size
		m, err := f.MapShared(l.size)
		if err != nil {
			return err
		}
		return s.setMapping(m)
	})
	if err != nil { // there may be no mapping left
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(err)
	}
	return nil
}

// idleHeader is one that says that there is nothing in the segment.
func (l *Log) idleHeader(base uint64) (b [headerBytes]byte) {
	h := header{state: stateIdle, base: base, full: l.size}
	h.encode(&b)
	return b
}

// writeIdle makes an idle header durable. It writes it also where there is one: after a sync that
// failed the page cache may say what the disk does not.
func (l *Log) writeIdle(f vfs.File, base uint64) error {
	b := l.idleHeader(base)
	// In the order of putHeader: a write may fail behind a part of its bytes, and what it leaves
	// then is to be a header that is known to be unfinished.
	for _, part := range []struct {
		bytes  []byte
		offset int64
	}{{magicBusy[:], 0}, {b[8:], 8}, {b[:8], 0}} {
		if _, err := f.WriteAt(part.bytes, part.offset); err != nil {
			return err
		}
	}
	return syncFile(f)
}

// reset makes the segment durably idle and as large as it may begin, and maps it. A file that
// becomes longer needs no Allocate: nothing is stored to it before what is written here is synced.
func (l *Log) reset(s *segment, base uint64, flag int) error {
	err := s.open(flag, func(f vfs.File) error {
		old, keep, size, err := l.fit(f)
		if err != nil {
			return err
		}
		// First the header, then the length: one that promises more than the file has is damage.
		if keep > 0 {
			if err := l.writeIdle(f, base); err != nil {
				return err
			}
		}
		if keep < old {
			if err := s.setMapping(nil); err != nil {
				return err
			}
			if err := f.Truncate(keep); err != nil {
				return err
			}
		}
		if keep < size {
			if err := l.fill(f, base, keep, size); err != nil {
				return err
			}
		}
		if keep < old || keep < size {
			if err := syncFile(f); err != nil {
				return err
			}
		}
		s.fileSize = size
		if s.mapping != nil && s.size() == size {
			return nil
		}
		m, err := f.MapShared(size)
		if err != nil {
			return err
		}
		return s.setMapping(m)
	})
	return l.failedSync(err)
}

// fit tells how long the file is, how much of that stays, and how long it is to be.
func (l *Log) fit(f vfs.File) (old, keep, size int64, err error) {
	if old, err = f.Size(); err != nil {
		return 0, 0, 0, err
	}
	first := min(l.first, l.size)
	size = max(first, min(old, l.size)&^7)
	if old < headerSize {
		return old, 0, size, nil
	}
	data, hole, err := vfs.NextData(f, 0)
	if err != nil {
		return 0, 0, 0, err
	}
	if data > 0 || hole < min(old, size) {
		// A copy, or not ours. What such a file claims is not allocated.
		return old, headerSize, first, nil
	}
	return old, min(old, size), size, nil
}

// fill writes [from, to) of the file of an idle segment, with the header if from is 0.
func (l *Log) fill(f vfs.File, base uint64, from, to int64) error {
	if from == 0 {
		var first [headerSize]byte
		header := l.idleHeader(base)
		copy(first[:], header[:])
		if _, err := f.WriteAt(first[:], 0); err != nil {
			return err
		}
		from = headerSize
	}
	return writeZeros(f, from, to)
}

// failedSync ends the wal if err is that of a sync.
func (l *Log) failedSync(err error) error {
	if errors.Is(err, errSync) {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.fail(err)
	}
	return err
}
