package mmrun

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// memorySize is the length of the memory file. Shorter than the committed memory is damage. That is
// to be found before the wal is replayed, which makes the file as long as the records want it:
// what had been cut off would come back as zeros.
func (in *Instance) memorySize(memory vfs.File) (int64, error) {
	size, err := memory.Size()
	if err != nil {
		return 0, in.fileError(err)
	}
	if want := int64(in.state.MemoryPages) * mmapmem.WasmPageSize; size < want {
		return 0, asKind(ErrCorrupt, fmt.Errorf("state %s: %s has %d bytes, %d were committed (run: mmrun verify %s)",
			in.dir, memoryName, size, want, in.dir))
	}
	return size, nil
}

// fitMemory makes the memory file as long as the committed memory. What lies behind it was never
// committed: growth extends the file inside an event.
func (in *Instance) fitMemory(memory vfs.File) error {
	if memory == nil {
		return nil
	}
	size, err := in.memorySize(memory)
	if err != nil {
		return err
	}
	if want := int64(in.state.MemoryPages) * mmapmem.WasmPageSize; size > want {
		if err := memory.Truncate(want); err != nil {
			return in.fileError(err)
		}
	}
	return nil
}

// mapMemory maps the file for the guest.
func (in *Instance) mapMemory(memory vfs.File, kind mmapmem.Kind) error {
	if memory == nil {
		return nil
	}
	mem, err := mmapmem.Open(memory, kind, in.guest.maxPages())
	if err != nil {
		return in.fileError(err)
	}
	in.files.add(mem.Close)
	in.mem, in.guest.mem = mem, mem
	// Holes, which a copy of the directory may have made, would be a SIGBUS on a full disk.
	return mem.EnsureFile(uint64(in.state.MemoryPages) * mmapmem.WasmPageSize)
}

// openAtomic recovers: it replays what the wal holds beyond the newest slot.
func (in *Instance) openAtomic(sidecar *globalsfile.File, memory vfs.File) error {
	fo := &folder{dir: in.dir, memory: memory, sidecar: sidecar, logger: in.opts.logger, state: delta.Clone(in.state)}
	if memory != nil {
		if _, err := in.memorySize(memory); err != nil {
			return err
		}
		f, err := in.openFile(sumsName)
		if err != nil {
			return in.fileError(err)
		}
		fo.sums = mmapmem.NewSums(f)
		fo.patcher = mmapmem.NewPatcher(memory, fo.sums)
	}
	j, err := in.openWAL()
	if err != nil {
		return err
	}
	if err := in.recover(j, fo); err != nil {
		return in.fileError(err)
	}
	if err := in.fitMemory(memory); err != nil {
		return err
	}
	if fo.sums != nil {
		if err := fo.sums.Clip(uint64(in.state.MemoryPages) * mmapmem.WasmPageSize); err != nil {
			return in.fileError(err)
		}
	}
	if err := in.mapMemory(memory, mmapmem.Private); err != nil {
		return err
	}
	in.keeper = &atomicKeeper{in: in, wal: j, folder: fo, folded: in.state.Seq}
	return nil
}

// openWAL opens the wal at the size it has: that of the smaller segment, since a
// large commit may have grown one.
func (in *Instance) openWAL() (*wal.Log, error) {
	size := int64(0)
	for _, name := range walNames {
		fi, err := os.Stat(filepath.Join(in.dir, name))
		if err != nil {
			return nil, in.fileError(err)
		}
		if size == 0 || fi.Size() < size {
			size = fi.Size()
		}
	}
	j, err := wal.Open(in.opts.fs, in.dir, max(size, wal.MinSize))
	if err != nil {
		return nil, in.fileError(err)
	}
	in.files.add(j.Close)
	return j, nil
}

// recover is a checkpoint of all that the wal holds. It may be killed at any point and run
// again: the slot is written last, and until then the records are there.
func (in *Instance) recover(j *wal.Log, fo *folder) error {
	// The write-ahead rule holds here too: after a kill the records may be in the page cache only.
	if !in.last.closed {
		if err := j.SyncFiles(); err != nil {
			return err
		}
	}
	from := in.state.Seq
	rec, err := j.Replay(from, func(r wal.Record) error {
		if fo.memory != nil {
			if err := in.checkRecord(r, fo); err != nil {
				return err
			}
		}
		return fo.apply(r)
	})
	if err != nil {
		return err
	}
	if err := in.last.unexplained(rec); err != nil {
		return fmt.Errorf("%w: %w", wal.ErrCorrupt, err)
	}
	if err := in.guest.checkShape(fo.state); err != nil {
		return err
	}
	if rec.Records > 0 {
		if err := fo.publish(); err != nil {
			return err
		}
		in.counters.recovered = rec.LastSeq - from
		in.opts.logger.Info("recovered", "state", in.dir, "from", from, "to", rec.LastSeq)
	}
	in.state = delta.Clone(fo.state)
	return j.Reset(rec.LastSeq)
}

// checkRecord refuses a record that does not fit the module before it is applied, and makes the
// file as long as its memory.
func (in *Instance) checkRecord(r wal.Record, fo *folder) error {
	if r.WasmPages < fo.state.MemoryPages || r.WasmPages > in.guest.maxPages() {
		return fmt.Errorf("%w: commit %d has a memory of %d wasm pages", wal.ErrCorrupt, r.Seq, r.WasmPages)
	}
	end := uint64(r.WasmPages) * mmapmem.WasmPageSize
	for offset, data := range r.Ranges() {
		if uint64(offset)+uint64(len(data)) > end {
			return fmt.Errorf("%w: commit %d writes behind its memory", wal.ErrCorrupt, r.Seq)
		}
	}
	if r.WasmPages == fo.state.MemoryPages && fo.long {
		return nil // as long as for the record before
	}
	fo.long = true
	size, err := fo.memory.Size()
	if err != nil || uint64(size) >= end {
		return err
	}
	return fo.memory.Truncate(int64(end))
}

// settleContinuous brings the state that was read to what the event word and the file say, and
// removes what a conversion that did not finish has left.
func (in *Instance) settleContinuous(sidecar *globalsfile.File, memory vfs.File, torn bool) error {
	seq, _ := sidecar.Event()
	in.state.Seq = max(in.state.Seq, seq)
	for _, name := range append([]string{sumsName}, walNames...) {
		if err := in.opts.fs.Remove(filepath.Join(in.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return in.fileError(err)
		}
	}
	if torn && memory != nil {
		// The event may have grown the memory; as it is means with that.
		size, err := memory.Size()
		if err != nil {
			return in.fileError(err)
		}
		in.state.MemoryPages = tornPages(in.state.MemoryPages, size, in.guest.maxPages())
		// A power cut may have kept the globals of a growth and lost the file's new length.
		if want := int64(in.state.MemoryPages) * mmapmem.WasmPageSize; size < want {
			if err := memory.Truncate(want); err != nil {
				return in.fileError(err)
			}
		}
	}
	return in.fitMemory(memory)
}

// tornPages is the size of a torn memory in wasm pages: as committed, or as an event that did not end has grown the file.
func tornPages(committed uint32, fileSize int64, most uint32) uint32 {
	return uint32(min(max(int64(committed), fileSize/mmapmem.WasmPageSize), int64(most)))
}

func (in *Instance) openContinuous(sidecar *globalsfile.File, memory vfs.File, torn bool) error {
	if err := in.mapMemory(memory, mmapmem.Shared); err != nil {
		return in.fileError(err)
	}
	if memory != nil && sidecar.SyncFailed() {
		if err := rewriteFile(memory); err != nil {
			return in.fileError(err)
		}
	}
	boot := in.opts.bootID()
	if torn {
		// Taken as it is: from here on this is the state, of this boot of the machine. Until it
		// has been written, whoever opens it must be told that it is torn.
		if err := sidecar.WriteSlot(in.state); err != nil {
			return in.fileError(err)
		}
		if err := sidecar.SetClean(false, boot); err != nil {
			return in.fileError(err)
		}
	}
	sidecar.EndEvent(in.state.Seq)
	in.keeper = &continuousKeeper{in: in, memory: memory, sidecar: sidecar, boot: boot, clean: sidecar.Header().Clean}
	return nil
}

// rewriteFile writes a file over itself, so that the next sync writes all of it.
func rewriteFile(f vfs.File) error {
	size, err := f.Size()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
