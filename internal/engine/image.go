package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// Image is all of a state as of one commit. It is read once, from begin to end.
type Image struct {
	State  *globalsfile.State
	Mode   globalsfile.Mode
	Module []byte
	Hash   [32]byte
	Size   uint64 // of the memory, bytes

	// next gives the next bytes of the memory that may not be zeros; n is 0 at the end.
	next  func(b []byte) (offset uint64, n int, err error)
	close func() error
	// cloneOf is a directory whose memory file and checksums, as they are, are those of the image.
	cloneOf string
}

// ImageChunk is how many bytes of memory an image is read at once, at most: 1 MiB.
const ImageChunk = 1 << 20

// Pages calls fn for runs of pages, in ascending order, that hold all that is not zero. The bytes
// are valid until it returns.
func (im *Image) Pages(fn func(offset uint64, data []byte) error) error {
	b := make([]byte, ImageChunk)
	for {
		offset, n, err := im.next(b)
		if err != nil || n == 0 {
			return err
		}
		if err := fn(offset, b[:n]); err != nil {
			return err
		}
	}
}

// Close gives back what the image holds.
func (im *Image) Close() error {
	if im.close == nil {
		return nil
	}
	return im.close()
}

// Image takes an image of the last commit, or a later one, while events go on. Under SyncAlways
// what it holds is durable.
func (s *Store) Image(ctx context.Context) (*Image, error) {
	if s.mode == Continuous {
		return s.imageHeld(ctx)
	}
	for {
		if err := s.Checkpoint(ctx); err != nil {
			return nil, err
		}
		if im, err := s.imageBetween(ctx); im != nil || err != nil {
			return im, err
		}
	}
}

// imageBetween takes the image that the files are, unless a checkpoint is under way.
func (s *Store) imageBetween(ctx context.Context) (*Image, error) {
	if err := s.Enter(ctx); err != nil {
		return nil, err
	}
	defer s.Leave()
	if err := s.Usable(); err != nil {
		return nil, err
	}
	k := s.keep.(*atomicKeeper)
	if k.running != nil && k.running.finished() {
		if err := k.noteCheckpoint(); err != nil {
			return nil, err
		}
	}
	if k.running != nil {
		return nil, nil
	}
	c := k.checkpoint
	im := s.newImage(delta.Clone(c.state))
	if c.memory == nil {
		im.next = noPages
		return im, nil
	}
	saver := pagefile.NewSaver(c.memory, im.Size)
	c.patcher.Save(saver)
	im.next = saver.Next
	im.close = func() error {
		c.patcher.StopSaving(saver)
		return nil
	}
	return im, nil
}

func noPages([]byte) (uint64, int, error) { return 0, 0, nil }

func (s *Store) newImage(state *globalsfile.State) *Image {
	code := s.guest.Code()
	return &Image{State: state, Mode: s.mode, Module: code.Wasm, Hash: code.Hash,
		Size: uint64(state.MemoryPages) * mmapmem.WasmPageSize}
}

// imageHeld is for a continuous state, whose memory is the file: no event runs until the image is
// closed.
func (s *Store) imageHeld(ctx context.Context) (*Image, error) {
	if err := s.Enter(ctx); err != nil {
		return nil, err
	}
	if err := s.Usable(); err != nil {
		s.Leave()
		return nil, err
	}
	im := s.newImage(delta.Clone(s.state))
	im.next = noPages
	if s.mem != nil {
		at, live := uint64(0), s.mem.Bytes()
		im.next = func(b []byte) (uint64, int, error) {
			from := at
			n := copy(b, live[from:im.Size])
			at += uint64(n)
			return from, n, nil
		}
	}
	im.close = func() error {
		s.Leave()
		return nil
	}
	return im, nil
}

// OpenImage takes an image of a state that nobody has open, as Open would find it. Nothing is
// changed, and while it is open nobody else can open the state.
func OpenImage(fsys vfs.FS, dir string, boot [16]byte) (_ *Image, err error) {
	if err := statedir.MustExist(dir); err != nil {
		return nil, err
	}
	release, last, err := statedir.KeepOut(dir, boot)
	if err != nil {
		return nil, err
	}
	r := &dirImage{fsys: fsys, dir: dir, overlay: make(map[uint32]*pagefile.Suspect)}
	r.files.add(func() error { release(); return nil })
	defer func() {
		if err != nil {
			err = errors.Join(err, r.files.close())
		}
	}()
	im, err := r.open(last)
	return im, err
}

// dirImage reads the image of a directory.
type dirImage struct {
	fsys    vfs.FS
	dir     string
	files   closers
	checked *pagefile.Checked
	memory  vfs.File
	// overlay are the pages that the log brings forward.
	overlay map[uint32]*pagefile.Suspect
	at      uint64
	size    uint64
}

// mostOverlay bounds how many pages the log may bring forward: 1 GiB.
const mostOverlay = 1 << 18

func (r *dirImage) open(last statedir.LastExit) (*Image, error) {
	v, err := Read(r.fsys, r.dir, nil)
	if err == nil {
		err = v.Problem()
	}
	if err == nil {
		err = CheckWhole(v.Sidecar, last)
	}
	if err == nil && v.WAL != nil {
		err = Unexplained(last, v.Recovery)
	}
	if err != nil {
		return nil, fileError(r.dir, err)
	}
	im := &Image{State: v.State, Mode: v.Sidecar.Header.Mode, Module: v.Module,
		Hash: v.Sidecar.Header.Module, Size: uint64(v.State.MemoryPages) * mmapmem.WasmPageSize,
		next: noPages, close: r.files.close}
	if v.Info.Memory == nil {
		return im, nil
	}
	if r.memory, err = r.file(statedir.MemoryName); err != nil {
		return nil, fileError(r.dir, err)
	}
	if _, err := checkMemoryFile(r.dir, r.memory, v.Slot); err != nil {
		return nil, err
	}
	r.size = im.Size
	var sums vfs.File
	if im.Mode == Atomic {
		if sums, err = r.file(statedir.ChecksumsName); err != nil {
			return nil, fileError(r.dir, err)
		}
		if err := CheckTogether(v, sums); err != nil {
			return nil, errs.State(r.dir, "", err)
		}
		if err := r.bringForward(v, sums); err != nil {
			return nil, fileError(r.dir, err)
		}
		r.checked = pagefile.NewChecked(r.memory, sums)
	} else {
		r.checked = pagefile.NewChecked(r.memory, nil)
	}
	im.next = r.next
	if len(r.overlay) == 0 {
		im.cloneOf = r.dir
	}
	return im, nil
}

func (r *dirImage) file(name string) (vfs.File, error) {
	f, err := r.fsys.OpenFile(filepath.Join(r.dir, name), os.O_RDONLY, 0)
	if err == nil {
		r.files.add(f.Close)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errs.As(errs.ErrCorrupt, fmt.Errorf("%s is missing", name))
	}
	return f, err
}

// bringForward applies the records of the log to the pages that they name.
func (r *dirImage) bringForward(v *View, sums vfs.File) error {
	named := make(PageSet)
	_, err := v.WAL.Replay(v.Slot.Seq, func(rec wal.Record) error {
		named.Add(rec)
		if len(named) > mostOverlay {
			return fmt.Errorf("the log holds more pages than can be read at once (run: mmrun "+
				"checkpoint %s)",
				r.dir)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for page := range named {
		if r.overlay[page], err = pagefile.NewSuspect(r.memory, sums, page); err != nil {
			return err
		}
	}
	_, err = v.WAL.Replay(v.Slot.Seq, func(rec wal.Record) error {
		patchSuspects(r.overlay, rec)
		return nil
	})
	for page, s := range r.overlay {
		if err == nil && !s.Innocent() {
			err = fmt.Errorf("page %d: %w", page, pagefile.ErrChecksum)
		}
	}
	return err
}

func (r *dirImage) next(b []byte) (offset uint64, n int, err error) {
	start, _, err := vfs.NextData(r.memory, int64(r.at))
	if err != nil {
		return 0, 0, fileError(r.dir, err)
	}
	offset = min(uint64(start)/mmapmem.PageSize*mmapmem.PageSize, r.size)
	if offset > r.at {
		for p := range r.overlay { // what the file has no blocks for yet
			if at := uint64(p) * mmapmem.PageSize; at >= r.at && at < offset {
				offset = at
			}
		}
	}
	n = int(min(uint64(len(b)), r.size-offset))
	inLog := func(p uint32) bool { return r.overlay[p] != nil }
	if err := r.checked.Read(b[:n], offset, inLog); err != nil {
		return 0, 0, fileError(r.dir, err)
	}
	for i := 0; i < n; i += mmapmem.PageSize {
		p := uint32((offset + uint64(i)) / mmapmem.PageSize)
		if s := r.overlay[p]; s != nil {
			copy(b[i:], s.Bytes())
			delete(r.overlay, p)
		}
	}
	r.at = offset + uint64(n)
	return offset, n, nil
}

// SetPages gives an image its memory: next gives the next bytes that may not be zeros, whole pages
// by ascending offsets, and n is 0 at the end. close may be nil.
func SetPages(im *Image, next func(b []byte) (offset uint64, n int, err error),
	close func() error) {
	im.next, im.close = next, close
}
