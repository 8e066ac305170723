package engine

import (
	"errors"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// Rebuild brings a damaged atomic state, locked by the caller, to the last commit that v could
// read. With force it takes pages as they are, whatever their checksums. It returns the commit. A
// rebuild that is cut off can be run again.
func Rebuild(fsys vfs.FS, v *View, force bool) (seq uint64, err error) {
	var files closers
	defer func() { err = errors.Join(err, files.close()) }()
	sidecar, err := globalsfile.Open(fsys, filepath.Join(v.Dir, statedir.GlobalsName))
	if err != nil {
		return 0, err
	}
	files.add(sidecar.Close)
	var memory vfs.File
	var sums *pagefile.Checksums
	end := int64(v.State.MemoryPages) * mmapmem.WasmPageSize
	if v.Info.Memory != nil {
		open := func(name string) (vfs.File, error) {
			flags := os.O_RDWR | os.O_CREATE
			f, err := fsys.OpenFile(filepath.Join(v.Dir, name), flags, statedir.FilePerm)
			if err == nil {
				files.add(f.Close)
			}
			return f, err
		}
		if memory, err = open(statedir.MemoryName); err != nil {
			return 0, err
		}
		f, err := open(statedir.ChecksumsName)
		if err != nil {
			return 0, err
		}
		sums = pagefile.NewChecksums(func() (vfs.File, error) { return f, nil })
		if err := memory.Truncate(end); err != nil {
			return 0, err
		}
	}
	c := newCheckpointer(v.Dir, sidecar, v.Slot, memory, sums, slog.New(slog.DiscardHandler))
	if c.patcher != nil && force {
		c.patcher = pagefile.NewPatcher(memory, nil) // whatever the checksums
	}
	// The write-ahead rule: what the log holds may be in the page cache only.
	if err := syncLogAgain(fsys, v.Dir); err != nil {
		return 0, err
	}
	if v.WAL != nil {
		// Up to the last commit that v could read: what comes behind it is the damage.
		_, err := v.WAL.Replay(c.state.Seq, func(r wal.Record) error {
			if r.Seq > v.State.Seq {
				return errEnough
			}
			return c.apply(r)
		})
		if err != nil && c.applied != v.State.Seq {
			return 0, err
		}
	}
	c.number = binding.New()
	if err := c.publish(); err != nil {
		return 0, err
	}
	if c.memory != nil {
		err := c.sums.Build(c.memory, uint64(end),
			binding.Stamp{Seq: c.state.Seq, Checkpoint: c.number})
		if err != nil {
			return 0, err
		}
		if err := c.sums.Sync(); err != nil {
			return 0, err
		}
	}
	// The log comes last: until then a rebuild that is cut off can be run again.
	log, err := wal.Create(fsys, v.Dir, v.segmentSize(), c.state.Seq)
	if err != nil {
		return 0, err
	}
	return c.state.Seq, log.Close()
}

var errEnough = errors.New("the rest of the log is not wanted")

// syncLogAgain puts the log's files on the disk as they are. They are written again before, since
// after a sync that failed the kernel takes pages for clean that are not on the disk.
func syncLogAgain(fsys vfs.FS, dir string) error {
	for _, name := range statedir.WALNames {
		f, err := fsys.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			if err = vfs.Rewrite(f, math.MaxInt64); err == nil {
				err = f.Sync()
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// segmentSize is the full size of the log's segments, as far as it can still be seen.
func (v *View) segmentSize() int64 {
	if v.WAL != nil {
		if n := v.WAL.FullSize(); n >= MinWALSize/2 && n <= MaxWALSize/2 {
			return n
		}
	}
	return DefaultWALSize / 2
}

// AcceptTorn makes of a torn continuous state, locked by the caller, one that is taken as it is. It
// returns the commit.
func AcceptTorn(fsys vfs.FS, boot [16]byte, v *View) (seq uint64, err error) {
	sidecar, err := globalsfile.Open(fsys, filepath.Join(v.Dir, statedir.GlobalsName))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, sidecar.Close()) }()
	s := delta.Clone(v.State)
	event, _ := sidecar.Event()
	s.Seq = max(s.Seq, event)
	if v.Info.Memory != nil {
		if err := acceptMemory(fsys, v, s, sidecar.SyncFailed()); err != nil {
			return 0, err
		}
	}
	if err := sidecar.WriteSlot(s); err != nil {
		return 0, err
	}
	sidecar.EndEvent(s.Seq)
	if err := sidecar.Sync(); err != nil {
		return 0, err
	}
	return s.Seq, sidecar.SetClean(true, boot)
}

// acceptMemory makes the memory file as long as what is in it, and puts it on the disk: the header
// is about to say that it is there.
func acceptMemory(fsys vfs.FS, v *View, s *globalsfile.State, syncFailed bool) error {
	memory, err := fsys.OpenFile(filepath.Join(v.Dir, statedir.MemoryName), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer memory.Close()
	if err := takeTornMemory(memory, s, v.MaxPages()); err != nil {
		return err
	}
	if syncFailed {
		if err := vfs.Rewrite(memory, math.MaxInt64); err != nil {
			return err
		}
	}
	return memory.Sync()
}
