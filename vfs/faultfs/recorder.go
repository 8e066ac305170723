package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/mmrun/mmrun/vfs"
)

// SectorSize is what a disk writes whole or not at all.
const SectorSize = 512

// pageSize is what the kernel writes back, and gives up after a failed sync, as one.
const pageSize = 4096

// Recorder is a layer that knows what a power cut could leave of a directory tree. The model:
//
//   - A file's Sync makes durable the content and the length that it has when the call begins.
//     What was written since may be on the disk sector by sector: each sector is the durable one
//     or any later version of it, the length the durable one or any later one.
//   - SyncDir makes the entries of a directory durable as they are. What was created, renamed or
//     removed since may be there or not, one by one; a rename is one change. Sync of a new file
//     does not make its name durable.
//   - A Sync that fails leaves pages of which nothing is known and which the kernel takes for
//     clean: a later Sync does not write them, unless they are stored to again.
//
// That is weaker than what ext4 or XFS promise, which order changes of names and lengths.
//
// Stores through mappings are found by reading the files at each operation and at each
// [Recorder.Point], so the tree must lie on a file system whose mappings and reads agree. No real
// sync takes place. Operations happen one at a time.
type Recorder struct {
	// Before, if set, is called before each operation, and by Point with nil. What it may call is
	// [Recorder.Cuts] and [Recorder.Generation].
	Before func(op *Op)
	// Skip, if set, makes Sync and SyncDir calls do nothing but return nil.
	Skip func(op *Op) bool
	// Coarse, if set, makes the recorder look at a file when it is synced and at a Point only. It
	// then knows fewer of the versions that a sector has had in between, and costs less.
	Coarse bool
	// FailSync, if set, makes Sync and SyncDir calls fail.
	FailSync func(op *Op) error

	root string

	mu         sync.Mutex
	top        *node
	open       map[int64]*node // by handle, of files and of mappings
	generation uint64
	buf        []byte
}

// node is a file or a directory.
type node struct {
	path string // for messages: where it was first seen

	// A file. The contents are replaced and never changed, so that images can share them.
	f       *os.File
	durable []byte           // content of the last sync
	now     []byte           // content when it was last looked at
	pending map[int][][]byte // by index: what a sector has held since the last sync, oldest first
	lengths []int64          // what the length has been since the last sync, oldest first
	lost    map[int]bool     // by index: pages that a failed sync has dropped

	// A directory.
	entries map[string]*node // nil for a file
	stable  map[string]*node // as of the last SyncDir
	changes []change         // since then
}

// change is one atomic change of a directory: names and what they stand for from then on, nil
// for nothing.
type change map[string]*node

// NewRecorder begins with what is below root, all of it durable.
func NewRecorder(root string) (*Recorder, error) {
	r := &Recorder{root: root, open: make(map[int64]*node)}
	top, err := r.load(root)
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.top = top
	return r, nil
}

func (r *Recorder) load(path string) (*node, error) {
	list, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	dir := newDir(path)
	for _, e := range list {
		child := filepath.Join(path, e.Name())
		var n *node
		if e.IsDir() {
			n, err = r.load(child)
		} else if n, err = newFile(child); err == nil {
			r.look(n)
			n.settle()
		}
		if err != nil {
			return nil, err
		}
		dir.entries[e.Name()], dir.stable[e.Name()] = n, n
	}
	return dir, nil
}

func newDir(path string) *node {
	return &node{path: path, entries: make(map[string]*node), stable: make(map[string]*node)}
}

// newFile opens the file a second time, to look at it. That one stays open until Close, so that a
// file which is renamed or removed can still be looked at.
func newFile(path string) (*node, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	return &node{path: path, f: f, pending: make(map[int][][]byte), lost: make(map[int]bool)}, nil
}

// Close gives back what the recorder holds.
func (r *Recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	seen := make(map[*node]bool)
	var visit func(n *node)
	visit = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		if n.f != nil {
			errs = append(errs, n.f.Close())
		}
		for _, child := range n.entries {
			visit(child)
		}
		for _, child := range n.stable {
			visit(child)
		}
		for _, c := range n.changes {
			for _, child := range c {
				visit(child)
			}
		}
	}
	visit(r.top)
	for _, n := range r.open {
		visit(n)
	}
	return errors.Join(errs...)
}

// FS is the file system that records.
func (r *Recorder) FS() vfs.FS { return Wrap(vfs.OS, r.layer) }

// Generation moves with every change of what a power cut could leave. It is for Before.
func (r *Recorder) Generation() uint64 { return r.generation }

// Point looks at all files and calls Before with nil. To be called where stores have been made
// and no operation follows.
func (r *Recorder) Point() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lookAll()
	if r.Before != nil {
		r.Before(nil)
	}
}

func (r *Recorder) layer(op *Op, do func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.Coarse {
		r.lookAll()
	} else if op.Kind == Sync {
		r.look(r.open[op.Handle])
	}
	if r.Before != nil {
		r.Before(op)
	}
	switch op.Kind {
	case Sync, SyncDir:
		return r.sync(op)
	case OpenFile:
		return r.openFile(op, do)
	case Close, UnmapShared:
		n := r.open[op.Handle]
		delete(r.open, op.Handle)
		if n != nil && !r.reachable(n) && !r.inUse(n) {
			defer n.f.Close()
		}
		return do()
	}
	if err := do(); err != nil {
		return err
	}
	switch op.Kind {
	case MapShared:
		r.open[op.Handle] = r.open[op.File]
	case WriteAt:
		// dirty again, also where nothing changes
		if n := r.open[op.Handle]; n != nil && op.Length > 0 {
			for page := op.Offset / pageSize; page <= (op.Offset+op.Length-1)/pageSize; page++ {
				delete(n.lost, int(page))
			}
		}
	case Mkdir:
		dir, name := r.find(op.Path)
		r.change(dir, change{name: newDir(op.Path)})
	case Remove:
		dir, name := r.find(op.Path)
		r.change(dir, change{name: nil})
	case Rename:
		dir, from := r.find(op.Path)
		same, to := r.find(op.NewPath)
		if dir != same {
			panic("faultfs: rename between directories: " + op.String())
		}
		r.change(dir, change{from: nil, to: dir.entries[from]})
	}
	return nil
}

func (r *Recorder) openFile(op *Op, do func() error) error {
	dir, name := r.find(op.Path)
	if err := do(); err != nil {
		return err
	}
	n := dir.entries[name]
	if n == nil {
		var err error
		if n, err = newFile(op.Path); err != nil {
			return err
		}
		r.change(dir, change{name: n})
	}
	r.open[op.Handle] = n
	return nil
}

// sync is Sync and SyncDir.
func (r *Recorder) sync(op *Op) error {
	if r.Skip != nil && r.Skip(op) {
		return nil
	}
	var n *node
	if op.Kind == Sync {
		n = r.open[op.Handle]
	} else {
		dir, name := r.find(op.Path)
		if n = dir; name != "" {
			n = dir.entries[name]
		}
	}
	if r.FailSync != nil {
		if err := r.FailSync(op); err != nil {
			for sector := range n.pending {
				n.lost[sector*SectorSize/pageSize] = true
			}
			return &fs.PathError{Op: "sync", Path: op.Path, Err: err}
		}
	}
	r.generation++
	n.settle()
	return nil
}

// settle makes durable what there is.
func (n *node) settle() {
	if n.entries != nil {
		clear(n.stable)
		for name, child := range n.entries {
			n.stable[name] = child
		}
		n.changes = nil
		return
	}
	if len(n.lost) == 0 {
		n.durable = n.now
		clear(n.pending)
		n.lengths = n.lengths[:0]
		return
	}
	durable := make([]byte, len(n.now))
	copy(durable, n.durable)
	for sector, versions := range n.pending {
		if !n.lost[sector*SectorSize/pageSize] {
			if at := sector * SectorSize; at < len(durable) {
				copy(durable[at:], versions[len(versions)-1])
			}
			delete(n.pending, sector)
		}
	}
	n.durable = durable
	n.lengths = n.lengths[:0]
}

// find gives the directory of a path and the name in it; of the root itself the name is empty.
func (r *Recorder) find(path string) (dir *node, name string) {
	rel, err := filepath.Rel(r.root, path)
	if err != nil || strings.HasPrefix(rel, "..") {
		panic(fmt.Sprintf("faultfs: %s lies outside of %s", path, r.root))
	}
	dir = r.top
	if rel == "." {
		return dir, ""
	}
	parts := strings.Split(rel, string(filepath.Separator))
	for _, p := range parts[:len(parts)-1] {
		next := dir.entries[p]
		if next == nil || next.entries == nil {
			return newDir(path), parts[len(parts)-1] // the operation will fail
		}
		dir = next
	}
	return dir, parts[len(parts)-1]
}

func (r *Recorder) change(dir *node, c change) {
	r.generation++
	for name, n := range c {
		if n == nil {
			delete(dir.entries, name)
		} else {
			dir.entries[name] = n
		}
	}
	dir.changes = append(dir.changes, c)
}

// inUse tells whether n is still open or mapped under some handle.
func (r *Recorder) inUse(n *node) bool {
	for _, m := range r.open {
		if m == n {
			return true
		}
	}
	return false
}

// reachable tells whether a power cut could leave n under some name, or it has one.
func (r *Recorder) reachable(n *node) bool {
	found := false
	r.walk(r.top, func(m *node) { found = found || m == n })
	return found
}

// walk calls fn for everything that has a name or could have one after a power cut.
func (r *Recorder) walk(dir *node, fn func(*node)) {
	seen := make(map[*node]bool)
	var visit func(n *node)
	visit = func(n *node) {
		if n == nil || seen[n] {
			return
		}
		seen[n] = true
		fn(n)
		for _, names := range []map[string]*node{n.entries, n.stable} {
			for _, child := range names {
				visit(child)
			}
		}
		for _, c := range n.changes {
			for _, child := range c {
				visit(child)
			}
		}
	}
	visit(dir)
}

func (r *Recorder) lookAll() {
	r.walk(r.top, func(n *node) {
		if n.f != nil {
			r.look(n)
		}
	})
}

// look finds what has been stored to a file since the last look.
func (r *Recorder) look(n *node) {
	fi, err := n.f.Stat()
	if err != nil {
		panic(err)
	}
	size := int(fi.Size())
	r.buf = slices.Grow(r.buf[:0], size)[:size]
	got, err := n.f.ReadAt(r.buf, 0)
	if err != nil && err != io.EOF {
		panic(err)
	}
	now := r.buf[:got]
	if bytes.Equal(now, n.now) {
		return
	}
	r.generation++
	if len(now) != len(n.now) {
		n.lengths = append(n.lengths, int64(len(now)))
	}
	// Behind a new end there are zeros, should the file grow again.
	for at := 0; at < max(len(now), len(n.now)); at += SectorSize {
		sector, before := sectorAt(now, at), sectorAt(n.now, at)
		if sector == before {
			continue
		}
		i := at / SectorSize
		n.pending[i] = append(n.pending[i], sector[:])
		delete(n.lost, at/pageSize)
	}
	n.now = bytes.Clone(now)
}

// sectorAt is zero behind the end of b.
func sectorAt(b []byte, at int) (s [SectorSize]byte) {
	if at < len(b) {
		copy(s[:], b[at:])
	}
	return s
}
