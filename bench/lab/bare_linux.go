package lab

import (
	"os"

	"golang.org/x/sys/unix"
)

// Bare is a file that pages are written to, and nothing else: the least that anything which
// writes a page can cost. Its blocks are written before the first use, so that a sync has no
// extents to change.
type Bare struct {
	f    *os.File
	page []byte
	size int64
	at   int64
}

// NewBare makes a file of size bytes.
func NewBare(path string, size int64) (*Bare, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(make([]byte, size)); err != nil {
		return nil, err
	}
	return &Bare{f: f, page: make([]byte, PageSize), size: size}, f.Sync()
}

// Pwrite writes 4 KiB to the same place each time.
func (b *Bare) Pwrite() error {
	_, err := unix.Pwrite(int(b.f.Fd()), b.page, 0)
	return err
}

// PwriteSync writes 4 KiB behind those before, as a log does, and syncs.
func (b *Bare) PwriteSync() error {
	if _, err := unix.Pwrite(int(b.f.Fd()), b.page, b.at); err != nil {
		return err
	}
	b.at = (b.at + PageSize) % b.size
	return unix.Fdatasync(int(b.f.Fd()))
}

func (b *Bare) Close() error { return b.f.Close() }
