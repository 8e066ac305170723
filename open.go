package mmrun

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/disk"
	"github.com/mmrun/mmrun/journal"
	"github.com/mmrun/mmrun/mmapmem"
)

// Open resumes the instance kept in dir, or creates it there from wasm. A nil wasm takes the
// module kept in dir. Another module than the one that created the state is refused
// (ErrModuleMismatch), and so is a state that somebody else has open (ErrLocked).
//
// The first run of a module writes its data segments and runs its start function and, if it
// exports one, _initialize; that is commit 1. A resume runs none of them. A state directory is
// created whole or not at all.
//
// The caller owns the runtime, and what the module imports (WASI, host modules) must have been
// instantiated in it. The runtime must outlive the instance. The end of ctx does not end the
// instance.
//
// The number of bytes read from the memory file does not depend on its size.
func Open(ctx context.Context, rt wazero.Runtime, dir string, wasm []byte, opts ...Option) (*Instance, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	dir = filepath.Clean(dir)
	exists, err := stateExists(dir)
	if err != nil {
		return nil, err
	}
	var lock *os.File
	var g *guest
	var closed bool // by the owner before: all that is in the directory is on the disk
	if exists {
		if lock, closed, err = lockDir(dir, o.bootID()); err == nil && !closed {
			if err = syncNames(o.fs, dir); err != nil {
				err = errors.Join(fmt.Errorf("state %s: %w", dir, err), unlock(lock))
			}
		}
	} else {
		if wasm == nil {
			return nil, asKind(ErrNotExist, fmt.Errorf("state %s: does not exist, and no module was given to create it from", dir))
		}
		if g, err = newGuest(ctx, rt, wasm, o.config); err != nil {
			return nil, err
		}
		lock, err = buildDir(o.fs, dir, func(building string) error { return create(ctx, o, building, wasm, g) })
	}
	if err != nil {
		return nil, err
	}
	in := &Instance{dir: dir, opts: o, lock: lock, onDisk: closed || !exists, guest: g, functions: make(map[string]*Function)}
	in.tx.in = in
	in.files.add(func() error { return unlock(lock) })
	if err := in.resume(ctx, rt, wasm); err != nil {
		return nil, errors.Join(err, in.files.close())
	}
	return in, nil
}

// create fills a directory with the state of a module that has just run for the first time.
func create(ctx context.Context, o *options, dir string, wasm []byte, g *guest) (err error) {
	var files closers
	defer func() { err = errors.Join(err, files.close()) }()
	mode := o.mode
	if mode == 0 {
		mode = Atomic
	}
	if err := writeFile(o.fs, filepath.Join(dir, moduleName), wasm); err != nil {
		return err
	}
	memory, sums, err := createMemory(o, dir, mode, g, &files)
	if err != nil {
		return err
	}
	if err := g.instantiate(); err != nil {
		return err
	}
	files.add(g.close)
	if err := g.firstRun(ctx); err != nil {
		return err
	}
	state := g.blankState()
	delta, err := g.capture(state, nil)
	if err != nil {
		return err
	}
	if err := applyDelta(state, delta); err != nil {
		return err
	}
	state.Seq, state.MemoryPages = 1, g.pages()
	if err := writeMemory(g.mem, memory, sums); err != nil {
		return err
	}
	if mode == Atomic {
		j, err := journal.Create(o.fs, dir, o.journalSize/2, state.Seq)
		if err != nil {
			return err
		}
		if err := j.Close(); err != nil {
			return err
		}
	}
	sidecar, err := globalsfile.Create(o.fs, filepath.Join(dir, globalsName),
		globalsfile.Header{Module: sha256.Sum256(wasm), Mode: globalsfile.Mode(mode), BootID: o.bootID(), Clean: true}, state)
	if err != nil {
		return err
	}
	return sidecar.Close()
}

// createMemory opens the memory of a first run: a private one, whatever the mode, so that only
// what was written to goes into the file.
func createMemory(o *options, dir string, mode Mode, g *guest, files *closers) (disk.File, *mmapmem.Sums, error) {
	if g.info.Memory == nil {
		return nil, nil, nil
	}
	open := func(name string) (disk.File, error) {
		f, err := o.fs.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
		if err == nil {
			files.add(f.Close)
		}
		return f, err
	}
	memory, err := open(memoryName)
	if err != nil {
		return nil, nil, err
	}
	var sums *mmapmem.Sums
	if mode == Atomic {
		f, err := open(sumsName)
		if err != nil {
			return nil, nil, err
		}
		sums = mmapmem.NewSums(f)
	}
	if g.mem, err = mmapmem.Open(memory, mmapmem.Private, g.maxPages()); err != nil {
		return nil, nil, err
	}
	files.add(func() error {
		err := g.mem.Close()
		g.mem = nil
		return err
	})
	return memory, sums, nil
}

// writeMemory puts all that differs from zero into the file, durably.
func writeMemory(mem *mmapmem.Memory, memory disk.File, sums *mmapmem.Sums) error {
	if mem == nil {
		return nil
	}
	changes, err := mem.Changes()
	if err != nil {
		return err
	}
	patcher := mmapmem.NewPatcher(memory, sums)
	image := mem.Bytes()
	for _, r := range changes {
		if err := patcher.Patch(uint64(r.Offset), image[r.Offset:][:r.Len]); err != nil {
			return err
		}
	}
	if err := patcher.Flush(); err != nil {
		return err
	}
	if sums != nil {
		if err := sums.Sync(); err != nil {
			return err
		}
	}
	return memory.Sync()
}

// resume opens the files of a state that exists and is locked, and brings the guest to it.
func (in *Instance) resume(ctx context.Context, rt wazero.Runtime, wasm []byte) error {
	o := in.opts
	openSidecar := globalsfile.Open
	if in.onDisk {
		openSidecar = globalsfile.OpenSynced
	}
	sidecar, err := openSidecar(o.fs, filepath.Join(in.dir, globalsName))
	if err != nil {
		return in.fileError(err)
	}
	in.files.add(sidecar.Close)
	report, err := sidecar.Report()
	if err == nil {
		err = report.Check(o.bootID())
	}
	torn := errors.Is(err, globalsfile.ErrTorn)
	switch {
	case torn && !o.acceptTorn:
		return asKind(ErrTorn, fmt.Errorf("state %s: %w (its memory and its globals may not belong together; "+
			"open it with --force or WithAcceptTorn to take it as it is)", in.dir, err))
	case err != nil && !torn:
		return in.fileError(err)
	}
	header := sidecar.Header()
	if wasm, err = in.checkModule(wasm, header.Module); err != nil {
		return err
	}
	if in.guest == nil {
		if in.guest, err = newGuest(ctx, rt, wasm, o.config); err != nil {
			return fmt.Errorf("state %s: %w", in.dir, err)
		}
	}
	if in.state, err = sidecar.Read(); err != nil {
		return in.fileError(err)
	}
	if err := in.guest.checkShape(in.state); err != nil {
		return fmt.Errorf("state %s: %w", in.dir, err)
	}
	if err := in.openFiles(sidecar, Mode(header.Mode), torn); err != nil {
		return err
	}
	if err := in.guest.instantiate(); err != nil {
		return fmt.Errorf("state %s: %w", in.dir, err)
	}
	if err := in.guest.restore(in.state); err != nil {
		return errors.Join(fmt.Errorf("state %s: %w", in.dir, err), in.guest.close())
	}
	return nil
}

// fileError gives an error of a lower package its place and its kind.
func (in *Instance) fileError(err error) error {
	switch {
	case errors.Is(err, globalsfile.ErrTorn):
		return asKind(ErrTorn, fmt.Errorf("state %s: %w (nothing is left that could be opened)", in.dir, err))
	case errors.Is(err, globalsfile.ErrCorrupt), errors.Is(err, journal.ErrCorrupt), errors.Is(err, mmapmem.ErrSum), errors.Is(err, fs.ErrNotExist):
		return asKind(ErrCorrupt, fmt.Errorf("state %s: %w (run: mmrun verify %s)", in.dir, err, in.dir))
	case errors.Is(err, globalsfile.ErrVersion):
		return asKind(ErrUnsupported, fmt.Errorf("state %s: %w", in.dir, err))
	}
	return fmt.Errorf("state %s: %w", in.dir, err)
}

// checkModule returns the module of the state: wasm, if it is that, or the one kept.
func (in *Instance) checkModule(wasm []byte, want [32]byte) ([]byte, error) {
	if wasm == nil {
		kept, err := os.ReadFile(filepath.Join(in.dir, moduleName))
		if err != nil {
			return nil, in.fileError(err)
		}
		if got := sha256.Sum256(kept); got != want {
			return nil, asKind(ErrCorrupt, fmt.Errorf("state %s: %s has SHA-256 %x, the state was created by %x",
				in.dir, moduleName, got, want))
		}
		return kept, nil
	}
	if got := sha256.Sum256(wasm); got != want {
		return nil, asKind(ErrModuleMismatch, fmt.Errorf(
			"state %s: it belongs to the module with SHA-256 %x, the one given has %x (use another state directory, or the module kept in it as %s)",
			in.dir, want, got, moduleName))
	}
	return wasm, nil
}

// openFiles opens memory and journal, recovers, and converts the state to the mode asked for.
func (in *Instance) openFiles(sidecar *globalsfile.File, has Mode, torn bool) error {
	in.mode = has
	if in.opts.mode != 0 {
		in.mode = in.opts.mode
	}
	var memory disk.File
	if in.guest.info.Memory != nil {
		var err error
		if memory, err = in.openFile(memoryName); err != nil {
			return in.fileError(err)
		}
	}
	if has == Continuous {
		if err := in.settleContinuous(sidecar, memory, torn); err != nil {
			return err
		}
		if in.mode == Atomic {
			if err := in.toAtomic(sidecar, memory); err != nil {
				return err
			}
		}
	}
	if has == Atomic && in.mode == Continuous {
		return in.toContinuous(sidecar, memory)
	}
	if in.mode == Continuous {
		return in.openContinuous(sidecar, memory, torn)
	}
	return in.openAtomic(sidecar, memory)
}

func (in *Instance) openFile(name string) (disk.File, error) {
	f, err := in.opts.fs.OpenFile(filepath.Join(in.dir, name), os.O_RDWR, filePerm)
	if err != nil {
		return nil, err
	}
	in.files.add(f.Close)
	return f, nil
}

// memorySize is the length of the memory file. Shorter than the committed memory is damage. That is
// to be found before the journal is replayed, which makes the file as long as the records want it:
// what had been cut off would come back as zeros.
func (in *Instance) memorySize(memory disk.File) (int64, error) {
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
func (in *Instance) fitMemory(memory disk.File) error {
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
func (in *Instance) mapMemory(memory disk.File, kind mmapmem.Kind) error {
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

// openAtomic recovers: it replays what the journal holds beyond the newest slot.
func (in *Instance) openAtomic(sidecar *globalsfile.File, memory disk.File) error {
	fo := &folder{dir: in.dir, memory: memory, sidecar: sidecar, logger: in.opts.logger, state: cloneState(in.state)}
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
	j, err := in.openJournal()
	if err != nil {
		return err
	}
	if err := in.recover(j, fo); err != nil {
		return in.fileError(err)
	}
	if err := in.fitMemory(memory); err != nil {
		return err
	}
	if err := in.mapMemory(memory, mmapmem.Private); err != nil {
		return err
	}
	in.keeper = &atomicKeeper{in: in, journal: j, folder: fo, folded: in.state.Seq}
	return nil
}

// openJournal opens the journal at the size it has: that of the smaller segment, since a
// large commit may have grown one.
func (in *Instance) openJournal() (*journal.Journal, error) {
	size := int64(0)
	for _, name := range journalNames {
		fi, err := os.Stat(filepath.Join(in.dir, name))
		if err != nil {
			return nil, in.fileError(err)
		}
		if size == 0 || fi.Size() < size {
			size = fi.Size()
		}
	}
	j, err := journal.Open(in.opts.fs, in.dir, max(size, journal.MinSize))
	if err != nil {
		return nil, in.fileError(err)
	}
	in.files.add(j.Close)
	return j, nil
}

// recover is a checkpoint of all that the journal holds. It may be killed at any point and run
// again: the slot is written last, and until then the records are there.
func (in *Instance) recover(j *journal.Journal, fo *folder) error {
	// The write-ahead rule holds here too: after a kill the records may be in the page cache only.
	if !in.onDisk {
		if err := j.SyncFiles(); err != nil {
			return err
		}
	}
	from := in.state.Seq
	rec, err := j.Replay(from, func(r journal.Record) error {
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
	if rec.Records > 0 {
		if err := fo.publish(); err != nil {
			return err
		}
		in.counters.recovered = rec.LastSeq - from
		in.opts.logger.Info("recovered", "state", in.dir, "from", from, "to", rec.LastSeq)
	}
	in.state = cloneState(fo.state)
	return j.Reset(rec.LastSeq)
}

// checkRecord refuses a record that does not fit the module before it is applied, and makes the
// file as long as its memory.
func (in *Instance) checkRecord(r journal.Record, fo *folder) error {
	if r.WasmPages < fo.state.MemoryPages || r.WasmPages > in.guest.maxPages() {
		return fmt.Errorf("%w: commit %d has a memory of %d wasm pages", journal.ErrCorrupt, r.Seq, r.WasmPages)
	}
	end := uint64(r.WasmPages) * mmapmem.WasmPageSize
	for offset, data := range r.Ranges() {
		if uint64(offset)+uint64(len(data)) > end {
			return fmt.Errorf("%w: commit %d writes behind its memory", journal.ErrCorrupt, r.Seq)
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
func (in *Instance) settleContinuous(sidecar *globalsfile.File, memory disk.File, torn bool) error {
	seq, _ := sidecar.Event()
	in.state.Seq = max(in.state.Seq, seq)
	for _, name := range append([]string{sumsName}, journalNames...) {
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
		in.state.MemoryPages = max(in.state.MemoryPages, min(uint32(size/mmapmem.WasmPageSize), in.guest.maxPages()))
		// A power cut may have kept the globals of a growth and lost the file's new length.
		if want := int64(in.state.MemoryPages) * mmapmem.WasmPageSize; size < want {
			if err := memory.Truncate(want); err != nil {
				return in.fileError(err)
			}
		}
	}
	return in.fitMemory(memory)
}

func (in *Instance) openContinuous(sidecar *globalsfile.File, memory disk.File, torn bool) error {
	if err := in.mapMemory(memory, mmapmem.Shared); err != nil {
		return in.fileError(err)
	}
	if memory != nil && sidecar.SyncFailed() {
		if err := rewriteFile(memory); err != nil {
			return in.fileError(err)
		}
	}
	boot := in.opts.bootID()
	sidecar.EndEvent(in.state.Seq)
	if torn {
		// Taken as it is: from here on this is the state, of this boot of the machine.
		if err := sidecar.WriteSlot(in.state); err != nil {
			return in.fileError(err)
		}
		if err := sidecar.SetClean(false, boot); err != nil {
			return in.fileError(err)
		}
	}
	in.keeper = &continuousKeeper{in: in, memory: memory, sidecar: sidecar, boot: boot,
		clean: sidecar.Header().Clean, syncs: in.opts.sync != SyncNever}
	return nil
}

// rewriteFile writes a file over itself, so that the next sync writes all of it.
func rewriteFile(f disk.File) error {
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
