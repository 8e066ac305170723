package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// create fills a directory, through fsys, with the state of a module that has just run for the
// first time. The globals file comes last: it makes a state of the directory. The guest has no
// instance and no memory before and after.
func create(ctx context.Context, o *Options, fsys vfs.FS, dir string, g *guest.Guest) (err error) {
	var files closers
	defer func() { err = errors.Join(err, files.close()) }()
	mode := o.Mode
	if mode == 0 {
		mode = Atomic
	}
	code := g.Code()
	path := filepath.Join(dir, statedir.ModuleName)
	if o.LinkModule == nil || o.LinkModule(path) != nil {
		if err := statedir.WriteFile(fsys, path, code.Wasm); err != nil {
			return err
		}
	}
	memory, err := createMemory(fsys, dir, mode, g, &files)
	if err != nil {
		return err
	}
	if err := g.Instantiate(); err != nil {
		return err
	}
	files.add(g.Close)
	if err := g.FirstRun(ctx); err != nil {
		return err
	}
	state := guest.ShapeOf(&code.Info).Blank()
	var first delta.Encoder
	var extras Extras
	if o.FirstKept != nil {
		extras.Kept = o.FirstKept()
	}
	if err := captureSmall(g, state, extras, &first); err != nil {
		return err
	}
	if err := first.Apply(state); err != nil {
		return err
	}
	state.Seq, state.MemoryPages = 1, g.Pages()
	if mode == Atomic {
		state.Binding = memory.number
	}
	if err := memory.write(); err != nil {
		return err
	}
	if mode == Atomic {
		log, err := wal.Create(fsys, dir, o.WALSize/2, state.Seq)
		if err != nil {
			return err
		}
		if err := log.Close(); err != nil {
			return err
		}
	}
	header := globalsfile.Header{Module: code.Hash, Mode: mode, BootID: o.BootID(), Clean: true}
	sidecar, err := globalsfile.Create(fsys, filepath.Join(dir, statedir.GlobalsName), header,
		state)
	if err != nil {
		return err
	}
	return sidecar.Close()
}

// firstMemory is the memory of a first run and the files for it; the zero value is none.
type firstMemory struct {
	mem    *mmapmem.Memory
	memory vfs.File
	sums   *pagefile.Checksums // nil in Continuous mode
	number uint64              // of the checkpoint that the first files are
}

// createMemory opens the memory of a first run: a private one, whatever the mode, so that only
// what was written to goes into the file.
func createMemory(fsys vfs.FS, dir string, mode globalsfile.Mode, g *guest.Guest,
	files *closers) (m firstMemory, err error) {
	m.number = binding.New()
	if g.Code().Info.Memory == nil {
		return m, nil
	}
	open := func(name string) (vfs.File, error) {
		flags := os.O_RDWR | os.O_CREATE | os.O_EXCL
		f, err := fsys.OpenFile(filepath.Join(dir, name), flags, statedir.FilePerm)
		if err == nil {
			files.add(f.Close)
		}
		return f, err
	}
	if m.memory, err = open(statedir.MemoryName); err != nil {
		return m, err
	}
	if mode == Atomic {
		f, err := open(statedir.ChecksumsName)
		if err != nil {
			return m, err
		}
		m.sums = pagefile.NewChecksums(func() (vfs.File, error) { return f, nil })
		if err := m.sums.Create(binding.Stamp{Seq: 1, Checkpoint: m.number}); err != nil {
			return m, err
		}
	}
	m.mem, err = mmapmem.Open(m.memory, mmapmem.Private, guest.MaxPages(&g.Code().Info))
	if err != nil {
		return m, err
	}
	g.SetMemory(m.mem)
	files.add(func() error {
		g.SetMemory(nil)
		return m.mem.Close()
	})
	return m, nil
}

// write puts all that differs from zero into the file, durably.
func (m firstMemory) write() error {
	if m.mem == nil {
		return nil
	}
	pending, err := m.mem.Changes()
	if err != nil {
		return err
	}
	patcher := pagefile.NewPatcher(m.memory, m.sums)
	image := m.mem.Bytes()
	for _, r := range pending.Ranges() {
		if err := patcher.Patch(uint64(r.Offset), image[r.Offset:][:r.Len]); err != nil {
			return err
		}
	}
	if err := patcher.Flush(); err != nil { // which syncs the checksums, if any were set
		return err
	}
	if m.sums != nil {
		if err := m.sums.Sync(); err != nil {
			return err
		}
	}
	return m.memory.Sync()
}
