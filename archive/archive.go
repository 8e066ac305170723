// Package archive looks after the life of states: it takes snapshots of them and restores those,
// forks them, and tells how two differ. The states are ones that nobody has open; of an open one,
// mmrun.Instance takes snapshots and forks while events go on.
//
// Whatever a function makes comes into being whole or not at all, whenever the process or the power
// ends.
package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/snapshot"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// Archiver does what the functions of the package do, with progress, or on another file system or
// in another boot of the machine, which is how tests cut the power. The zero value is this machine.
type Archiver struct {
	FS   vfs.FS   // nil: vfs.OS
	Boot [16]byte // zeros: the present boot
	// Progress, if not nil, is told now and then how many bytes of memory have been done.
	Progress func(done, total uint64)
}

func (a Archiver) orDefault() Archiver {
	if a.FS == nil {
		a.FS = vfs.OS
	}
	if a.Boot == ([16]byte{}) {
		a.Boot = statedir.Boot()
	}
	return a
}

// Manifest says what a snapshot is of.
type Manifest = snapshot.Manifest

var (
	// ErrMalformed: the bytes are no snapshot, or a damaged one.
	ErrMalformed = snapshot.ErrMalformed
	// ErrVersion: the snapshot is of a format that this program does not know.
	ErrVersion = snapshot.ErrVersion
)

// Snapshot writes all of the state in dir, as of its last commit, to w. The file is portable: it
// can be restored on another machine, file system and operating system. What the log holds that was
// not brought into the files yet is in it. Nothing in dir is changed; while it is read nobody can
// open it.
func Snapshot(ctx context.Context, dir string, w io.Writer) (*Manifest, error) {
	return Archiver{}.Snapshot(ctx, dir, w)
}

// Snapshot is the function of that name.
func (a Archiver) Snapshot(ctx context.Context, dir string, w io.Writer) (_ *Manifest, err error) {
	a = a.orDefault()
	dir = filepath.Clean(dir)
	im, err := engine.OpenImage(a.FS, dir, a.Boot)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	im.StopWith(ctx)
	m, err := snapshot.Write(w, im, time.Now(), a.Progress)
	if err != nil {
		return nil, errs.State(dir, "", err)
	}
	return m, nil
}

// ReadManifest reads what a snapshot is of, without reading all of it.
func ReadManifest(r io.ReaderAt, size int64) (*Manifest, error) {
	return snapshot.ReadManifest(r, size)
}

// Restore makes a state in dir of the snapshot that r gives, and returns the number of its commit.
// All of the snapshot is checked before the state gets its name.
func Restore(ctx context.Context, r io.Reader, dir string) (seq uint64, err error) {
	return Archiver{}.Restore(ctx, r, dir)
}

// Restore is the function of that name.
func (a Archiver) Restore(ctx context.Context, r io.Reader, dir string) (seq uint64, err error) {
	a = a.orDefault()
	im, err := snapshot.Read(r)
	if err != nil {
		return 0, fmt.Errorf("snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	im.Derive(engine.Restored)
	im.StopWith(ctx)
	return im.State.Seq, engine.Build(a.FS, dir, a.Boot, im, a.Progress)
}

// Fork makes a state of its own in to of the last commit of the one in dir, and returns its number.
// It shares blocks where the file system can (XFS, Btrfs), and takes no time that grows with the
// memory then, if the state was closed. See mmrun.ResumedName for what the fork's guest is told.
func Fork(ctx context.Context, dir, to string) (seq uint64, err error) {
	return Archiver{}.Fork(ctx, dir, to)
}

// Fork is the function of that name.
func (a Archiver) Fork(ctx context.Context, dir, to string) (seq uint64, err error) {
	a = a.orDefault()
	return engine.Fork(ctx, a.FS, filepath.Clean(dir), filepath.Clean(to), a.Boot, a.Progress)
}
