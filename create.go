package mmrun

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

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
	var first delta.Encoder
	if err := g.capture(state, &first); err != nil {
		return err
	}
	if err := first.Apply(state); err != nil {
		return err
	}
	state.Seq, state.MemoryPages = 1, g.pages()
	if err := writeMemory(g.mem, memory, sums); err != nil {
		return err
	}
	if mode == Atomic {
		j, err := wal.Create(o.fs, dir, o.walSize/2, state.Seq)
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
func createMemory(o *options, dir string, mode Mode, g *guest, files *closers) (vfs.File, *mmapmem.Sums, error) {
	if g.info.Memory == nil {
		return nil, nil, nil
	}
	open := func(name string) (vfs.File, error) {
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
func writeMemory(mem *mmapmem.Memory, memory vfs.File, sums *mmapmem.Sums) error {
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
	if err := patcher.Flush(); err != nil { // which syncs the sums
		return err
	}
	return memory.Sync()
}
