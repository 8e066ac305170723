package engine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// Build makes a state directory of an image, whole or not at all. Nothing of the module runs. The
// image is read once and not closed. progress, if not nil, is told how far the memory has been
// written.
func Build(fsys vfs.FS, dir string, boot [16]byte, im *Image,
	progress func(done, total uint64)) error {
	dir = filepath.Clean(dir)
	exists, err := statedir.Exists(dir)
	if err != nil {
		return err
	}
	if exists {
		return errs.State(dir, "", fmt.Errorf("there is a state already: %w", os.ErrExist))
	}
	info, err := checkImage(im)
	if err != nil {
		return errs.State(dir, "", err)
	}
	b := &build{fsys: fsys, dir: dir, boot: boot, im: im, hasMemory: info.Memory != nil,
		progress: progress}
	lock, err := statedir.Create(fsys, dir, boot, b.fill)
	if err != nil {
		return err
	}
	return lock.Close()
}

// checkImage refuses what Open would refuse: an image may come from anywhere.
func checkImage(im *Image) (rewriter.Info, error) {
	_, info, err := rewriter.Rewrite(im.Module, rewriter.Options{})
	if err != nil {
		return info, fmt.Errorf("module: %w", err)
	}
	return info, guest.CheckShape(&info, im.State)
}

type build struct {
	fsys      vfs.FS
	dir       string
	boot      [16]byte
	im        *Image
	hasMemory bool
	progress  func(done, total uint64)
	files     closers
}

func (b *build) open(fsys vfs.FS, name string) (vfs.File, error) {
	flags := os.O_RDWR | os.O_CREATE | os.O_EXCL
	f, err := fsys.OpenFile(filepath.Join(b.dir, name), flags, statedir.FilePerm)
	if err == nil {
		b.files.add(f.Close)
	}
	return f, err
}

// fill writes the files; the globals file, which makes a state of them, comes last.
func (b *build) fill(fsys vfs.FS) (err error) {
	defer func() { err = errors.Join(err, b.files.close()) }()
	err = statedir.WriteFile(fsys, filepath.Join(b.dir, statedir.ModuleName), b.im.Module)
	if err != nil {
		return err
	}
	state := delta.Clone(b.im.State)
	if state.Binding = 0; b.im.Mode == Atomic {
		state.Binding = binding.New()
	}
	if err := b.memory(fsys, state); err != nil {
		return err
	}
	if b.im.Mode == Atomic {
		log, err := wal.Create(fsys, b.dir, DefaultWALSize/2, state.Seq)
		if err != nil {
			return err
		}
		if err := log.Close(); err != nil {
			return err
		}
	}
	header := globalsfile.Header{Module: b.im.Hash, Mode: b.im.Mode, BootID: b.boot, Clean: true}
	sidecar, err := globalsfile.Create(fsys, filepath.Join(b.dir, statedir.GlobalsName), header,
		state)
	if err != nil {
		return err
	}
	return sidecar.Close()
}

func (b *build) memory(fsys vfs.FS, state *globalsfile.State) error {
	if !b.hasMemory { // it is read to its end all the same: that is where it is checked
		return b.im.Pages(func(uint64, []byte) error {
			return errors.New("there are bytes of a memory, which the module does not have")
		})
	}
	memory, err := b.open(fsys, statedir.MemoryName)
	if err != nil {
		return err
	}
	var sums *pagefile.Checksums
	var f vfs.File
	if b.im.Mode == Atomic {
		if f, err = b.open(fsys, statedir.ChecksumsName); err != nil {
			return err
		}
	}
	if b.cloneMemory(memory, f) {
		state.Binding = b.im.State.Binding // which the checksums have
		errs := []error{memory.Sync()}
		if f != nil {
			errs = append(errs, f.Sync())
		}
		return errors.Join(errs...)
	}
	if f != nil {
		sums = pagefile.NewChecksums(func() (vfs.File, error) { return f, nil })
		if err := sums.Create(binding.Stamp{Seq: state.Seq,
			Checkpoint: state.Binding}); err != nil {
			return err
		}
	}
	if err := memory.Truncate(int64(b.im.Size)); err != nil {
		return err
	}
	err = b.im.Pages(func(offset uint64, data []byte) error {
		if b.progress != nil {
			b.progress(offset, b.im.Size)
		}
		return writePages(memory, sums, offset, data)
	})
	if err == nil && sums != nil {
		err = sums.Sync()
	}
	if err == nil {
		err = memory.Sync()
	}
	return err
}

// buildRun is how many pages are written at once: larger writes make large folios (pagefile).
const buildRun = 16

var zeroPage [mmapmem.PageSize]byte

// writePages writes those of the pages that are not zeros, and notes their checksums.
func writePages(memory vfs.File, sums *pagefile.Checksums, offset uint64, data []byte) error {
	from := -1 // of a run that has not been written
	flush := func(to int) error {
		if from < 0 {
			return nil
		}
		_, err := memory.WriteAt(data[from:to], int64(offset)+int64(from))
		from = -1
		return err
	}
	for i := 0; i < len(data); i += mmapmem.PageSize {
		page := data[i:][:mmapmem.PageSize]
		if bytes.Equal(page, zeroPage[:]) {
			if err := flush(i); err != nil {
				return err
			}
			continue
		}
		if from >= 0 && i-from >= buildRun*mmapmem.PageSize {
			if err := flush(i); err != nil {
				return err
			}
		}
		if from < 0 {
			from = i
		}
		if sums == nil {
			continue
		}
		if err := sums.Put(uint32((offset+uint64(i))/mmapmem.PageSize), page); err != nil {
			return err
		}
	}
	return flush(len(data))
}
