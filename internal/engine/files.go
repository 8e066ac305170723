package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// fileError gives an error of a storage leaf its place and its kind.
func fileError(dir string, err error) error {
	switch {
	case errors.Is(err, globalsfile.ErrTorn):
		return errs.As(errs.ErrTorn, fmt.Errorf(
			"state %s: %w (nothing is left that could be opened)", dir, err))
	case errors.Is(err, errs.ErrCorrupt):
		return errs.State(dir, "", err)
	case errors.Is(err, section.ErrUnknown), errors.Is(err, globalsfile.ErrVersion),
		errors.Is(err, pagefile.ErrVersion):
		return errs.As(errs.ErrUnsupported, fmt.Errorf("state %s: %w", dir, err))
	case errors.Is(err, globalsfile.ErrCorrupt), errors.Is(err, wal.ErrCorrupt),
		errors.Is(err, delta.ErrMalformed),
		errors.Is(err, pagefile.ErrChecksum), errors.Is(err, fs.ErrNotExist),
		errors.Is(err, vfs.ErrNotRegular), errors.Is(err, vfs.ErrTooLarge):
		return errs.As(errs.ErrCorrupt, fmt.Errorf(
			"state %s: %w (run: mmrun verify %s)", dir, err, dir))
	}
	return fmt.Errorf("state %s: %w", dir, err)
}

func (c *core) path(name string) string { return filepath.Join(c.dir, name) }

// CheckWhole says whether the globals go with the memory beside them. What the page cache holds
// counts only if it is that of the last owner's own files, in its own boot.
func CheckWhole(report globalsfile.Report, last statedir.LastExit) error {
	var boot [16]byte
	if last.CacheIntact && last.FilesSynced {
		boot = report.Header.BootID
	}
	err := report.Check(boot)
	if err == nil && last.CopiedOpen && report.Header.Mode == Continuous {
		err = fmt.Errorf("its files were copied without the state having been closed, "+
			"they may be of different times: %w", globalsfile.ErrTorn)
	}
	return err
}

// checksumsOf gives access to a state's page checksums, which are open only while they are used.
func checksumsOf(fsys vfs.FS, dir string) *pagefile.Checksums {
	return pagefile.NewChecksums(func() (vfs.File, error) {
		return fsys.OpenFile(filepath.Join(dir, statedir.ChecksumsName), os.O_RDWR, 0)
	})
}

// syncCopied puts those files on the disk that an owner does not write to again before it
// acknowledges commits on top of them. An owner has synced them long ago, but whoever has copied a
// state need not have.
func syncCopied(fsys vfs.FS, dir string) error {
	for _, name := range []string{statedir.ModuleName, statedir.MemoryName,
		statedir.ChecksumsName} {
		f, err := fsys.OpenFile(filepath.Join(dir, name), os.O_RDONLY, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // not every state has all of them
		}
		if err == nil {
			err = errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMemoryFile returns the length of the memory file of a state. Shorter than the memory
// committed is damage. That is to be found before the log is replayed, which makes the file as long
// as the records want it: what had been cut off would come back as zeros.
func checkMemoryFile(dir string, memory vfs.File, s *globalsfile.State) (int64, error) {
	size, err := memory.Size()
	if err != nil {
		return 0, fileError(dir, err)
	}
	if want := int64(s.MemoryPages) * mmapmem.WasmPageSize; size < want {
		return 0, errs.As(errs.ErrCorrupt, fmt.Errorf(
			"state %s: %s has %d bytes, %d were committed (run: mmrun verify %s)",
			dir, statedir.MemoryName, size, want, dir))
	}
	return size, nil
}

// fitMemoryFile makes the memory file as long as the memory committed. What lies behind it was
// never committed: growth extends the file inside an event.
func fitMemoryFile(dir string, memory vfs.File, s *globalsfile.State) error {
	if memory == nil {
		return nil
	}
	size, err := checkMemoryFile(dir, memory, s)
	if err != nil {
		return err
	}
	if want := int64(s.MemoryPages) * mmapmem.WasmPageSize; size > want {
		if err := memory.Truncate(want); err != nil {
			return fileError(dir, err)
		}
	}
	return nil
}

// takeTornMemory takes a torn memory as it is: as large as committed, or as an event that did not
// end has grown the file. The file gets that length: a power cut may have kept the globals of a
// growth and lost the file's new length.
func takeTornMemory(memory vfs.File, s *globalsfile.State, maxPages uint32) error {
	size, err := memory.Size()
	if err != nil {
		return err
	}
	pages := max(int64(s.MemoryPages), size/mmapmem.WasmPageSize)
	s.MemoryPages = uint32(min(pages, int64(maxPages)))
	return memory.Truncate(int64(s.MemoryPages) * mmapmem.WasmPageSize)
}
