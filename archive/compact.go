package archive

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// Compact gives the blocks of the memory file back that hold nothing but zeros, and returns how
// many bytes those are. Checkpoints do that by themselves for what the guest clears in large
// pieces. A continuous state keeps its blocks: a store to one that is missing could not fail in a
// way that a guest survives.
func Compact(ctx context.Context, dir string) (freed int64, err error) {
	return Archiver{}.Compact(ctx, dir)
}

// Compact is the function of that name.
func (a Archiver) Compact(ctx context.Context, dir string) (freed int64, err error) {
	a = a.orDefault()
	dir = filepath.Clean(dir)
	if err := statedir.MustExist(dir); err != nil {
		return 0, err
	}
	lock, err := statedir.Acquire(dir, a.Boot)
	if err != nil {
		return 0, err
	}
	closed := lock.Last.CleanClose
	defer func() {
		if err == nil && closed {
			err = lock.SayClosed() // nothing but zeros has become zeros
		}
		err = errors.Join(err, lock.Close())
	}()
	v, err := engine.Read(a.FS, dir, nil)
	if err != nil {
		return 0, err
	}
	if v.Sidecar.Header.Mode != engine.Atomic {
		return 0, errs.Statef(errs.ErrUnsupported, dir, "a continuous state keeps its blocks")
	}
	f, err := a.FS.OpenFile(filepath.Join(dir, statedir.MemoryName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // of a module without a memory
	}
	if err != nil {
		return 0, errs.State(dir, "", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if freed, err = a.punch(ctx, f); err == nil {
		err = f.Sync()
	}
	return freed, errs.State(dir, "", err)
}

func (a Archiver) punch(ctx context.Context, f vfs.File) (freed int64, err error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	b := make([]byte, engine.ImageChunk)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return freed, err
		}
		start, end, err := vfs.NextData(f, at)
		if err != nil || start >= size {
			return freed, err
		}
		if a.Progress != nil {
			a.Progress(uint64(start), uint64(size))
		}
		start = start / pageSize * pageSize
		n, err := f.ReadAt(b[:min(int64(len(b)), end-start)], start)
		if n == 0 {
			return freed, err
		}
		got, err := punchZeros(f, b[:n/pageSize*pageSize], start)
		if err != nil {
			return freed, err
		}
		freed += got
		at = start + max(int64(n)/pageSize*pageSize, 1)
	}
	return freed, nil
}

// punchZeros gives back the pages of zeros in what was read at an offset.
func punchZeros(f vfs.File, b []byte, offset int64) (freed int64, err error) {
	for i := 0; i < len(b); {
		j := i
		for j < len(b) && bytes.Equal(b[j:j+pageSize], zeroPage) {
			j += pageSize
		}
		if j > i {
			if err := vfs.Punch(f, offset+int64(i), int64(j-i)); err != nil {
				return freed, err
			}
			freed += int64(j - i)
			i = j
			continue
		}
		i += pageSize
	}
	return freed, nil
}
