package globalsfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/vfs"
)

// filePerm: what a guest keeps is its owner's business.

// besidePath is where the next version of a file is built.
func besidePath(path string) string { return path + ".new" }

// grow gives each slot room for need bytes and changes nothing else: the same header, the same
// event area, the same two slots, in a new file that takes the name of the old one. Whoever opens
// the file after a crash at any step finds the same content in the small or in the large file.
func (f *File) grow(need int64) error {
	header := f.header
	header.capacity = capacityFor(need)
	slots := [2][]byte{f.slot(0), f.slot(1)}
	if err := writeBeside(f.fs, f.path, header, f.event[:], slots); err != nil {
		return err // the old file is as good as before
	}
	// Windows renames over no file that is open. From here on there is no way back: an error stays.
	stuck := func(err error) error {
		f.release()
		f.err = fmt.Errorf("globals file %s: giving its slots more room got stuck: %w: %w", f.path,
			ErrFailed, err)
		return f.err
	}
	if err := f.release(); err != nil {
		return stuck(err)
	}
	if err := replace(f.fs, f.path); err != nil {
		return stuck(err)
	}
	file, err := f.fs.OpenFile(f.path, os.O_RDWR, 0)
	if err != nil {
		return stuck(err)
	}
	err = f.mapAll(file, fileSize(header.capacity))
	if err := errors.Join(err, file.Close()); err != nil {
		return stuck(err)
	}
	f.header = header
	return nil
}

// writeBeside builds a file beside path, durable but for its name. Both copies of the header are
// equal. When it fails it leaves nothing.
func writeBeside(
	fsys vfs.FS, path string, h headerCopy, event []byte, slots [2][]byte,
) (err error) {
	front := make([]byte, slotsOffset)
	for i := range 2 {
		h.encode(front[headersOffset+i*pageSize:])
	}
	copy(front[eventOffset:], event)

	f, err := fsys.OpenFile(besidePath(path), os.O_RDWR|os.O_CREATE|os.O_TRUNC, vfs.FilePerm)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			err = errors.Join(err, fsys.Remove(besidePath(path)))
		}
	}()
	// Allocated before anything is written: what does not fit on the disk fails here, never as a
	// SIGBUS in a store through the mapping.
	if err := f.Allocate(0, fileSize(h.capacity)); err != nil {
		return err
	}
	if _, err := f.WriteAt(front, 0); err != nil {
		return err
	}
	for i, slot := range slots {
		if _, err := f.WriteAt(slot, slotsOffset+int64(i)*h.capacity); err != nil {
			return err
		}
	}
	// Synced before it gets its name: a power cut could leave the name with an empty file
	// otherwise.
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// replace gives the file built beside path its name, durably.
func replace(fsys vfs.FS, path string) error {
	if err := fsys.Rename(besidePath(path), path); err != nil {
		return err
	}
	// Without this sync a power cut could bring the old file back after the new one was written to.
	return fsys.SyncDir(filepath.Dir(path))
}
