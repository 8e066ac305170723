package vfs

import (
	"errors"
	"io"
)

// NextData finds the first stretch [start, end) of a file at or behind offset that is not a hole:
// what a file claims to hold is one thing, what it has blocks for another. Without such a stretch
// both are the size of the file. Where the system cannot tell, all of the file is data.
func NextData(f File, offset int64) (start, end int64, err error) {
	size, err := f.Size()
	if err != nil {
		return 0, 0, err
	}
	if offset >= size {
		return size, size, nil
	}
	if start, end, ok := nextData(f.OSFile(), offset); ok {
		// The size again: the file may have become shorter since it was asked for.
		return min(start, size), min(end, size), nil
	}
	return offset, size, nil
}

// rewriteChunk is how much Rewrite reads and writes at once.
const rewriteChunk = 256 << 10

// Rewrite writes the first end bytes of a file over themselves, so that the next Sync writes all
// of them to the disk. After a Sync that has failed the kernel takes pages for clean that are not
// on the disk, and no later Sync would write them. Holes stay holes.
func Rewrite(f File, end int64) error {
	var buf []byte
	for at := int64(0); at < end; {
		start, stop, err := NextData(f, at)
		if err != nil {
			return err
		}
		if stop = min(stop, end); start >= stop {
			return nil // nothing but a hole is left
		}
		for at = start; at < stop; {
			if buf == nil {
				buf = make([]byte, min(rewriteChunk, end))
			}
			n, err := f.ReadAt(buf[:min(int64(len(buf)), stop-at)], at)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if n == 0 {
				return nil // the file has become shorter
			}
			if _, err := f.WriteAt(buf[:n], at); err != nil {
				return err
			}
			at += int64(n)
		}
	}
	return nil
}
