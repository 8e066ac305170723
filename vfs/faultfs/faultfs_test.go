package faultfs

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestInjectorFailsTheOperationAskedFor(t *testing.T) {
	work := func(fsys vfs.FS, path string) error {
		f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte("12345678"), 0)
		return errors.Join(err, f.Sync(), f.Close())
	}
	for _, c := range []struct {
		k       int
		fault   Fault
		forever bool
		want    error
		failed  []Kind
		content string
	}{
		{0, EIO, false, nil, nil, "12345678"},
		{1, EIO, false, syscall.EIO, []Kind{OpenFile}, ""},
		{2, EIO, false, syscall.EIO, []Kind{WriteAt}, ""},
		{2, ENOSPC, true, syscall.ENOSPC, []Kind{WriteAt, Sync}, ""},
		{2, Short, false, syscall.ENOSPC, []Kind{WriteAt}, "1234"},
		{2, After, false, syscall.EIO, []Kind{WriteAt}, "12345678"},
		{4, EIO, false, syscall.EIO, []Kind{Close}, "12345678"},
		{5, EIO, false, nil, nil, "12345678"},
	} {
		path := filepath.Join(t.TempDir(), "f")
		inj := NewInjector(c.k, c.fault, c.forever)
		if err := work(Wrap(vfs.OS, inj.Layer), path); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		var failed []Kind
		for _, op := range inj.Failed() {
			failed = append(failed, op.Kind)
		}
		if !slices.Equal(failed, c.failed) {
			t.Errorf("%+v: failed %v", c, failed)
		}
		if b, _ := os.ReadFile(path); string(b) != c.content {
			t.Errorf("%+v: the file holds %q", c, b)
		}
	}
}

// disks lists what a power cut could leave now.
func (r *Recorder) disks(random int) (images []*Image) {
	r.Before = func(*Op) { images = r.Cuts(rand.New(rand.NewPCG(1, 2)), random) }
	r.Point()
	r.Before = nil
	return images
}

func newRecorder(t *testing.T) (r *Recorder, root string) {
	root = t.TempDir()
	r = must[*Recorder](t)(NewRecorder(root))
	t.Cleanup(func() { ok(t, r.Close()) })
	return r, root
}

func TestContentIsDurableAfterSyncAndNotBefore(t *testing.T) {
	r, root := newRecorder(t)
	fsys := r.FS()
	f := must[vfs.File](t)(fsys.OpenFile(filepath.Join(root, "f"), os.O_RDWR|os.O_CREATE, 0o666))
	ok(t, fsys.SyncDir(root))
	old, now := bytes.Repeat([]byte("o"), 4*SectorSize), bytes.Repeat([]byte("n"), 4*SectorSize)
	must[int](t)(f.WriteAt(old, 0))
	ok(t, f.Sync())
	mapping := must[[]byte](t)(f.Map(int64(len(old))))
	copy(mapping, now) // a store, not an operation
	seen := make(map[string]bool)
	for _, im := range r.disks(300) {
		b := im.Files["f"]
		for s := 0; s < len(b); s += SectorSize {
			if sector := b[s : s+SectorSize]; !bytes.Equal(sector, old[:SectorSize]) &&
				!bytes.Equal(sector, now[:SectorSize]) {
				t.Fatalf("a sector is neither old nor new: %q", sector)
			}
		}
		seen[string(b)] = true
	}
	if len(seen) != 16 {
		t.Errorf("%d different contents of 4 sectors, want 16", len(seen))
	}
	ok(t, f.Sync())
	for _, im := range r.disks(20) {
		if !bytes.Equal(im.Files["f"], now) {
			t.Fatalf("%s: something synced is missing", im.Plan)
		}
	}
}

func TestNameIsDurableAfterSyncDirAndNotBefore(t *testing.T) {
	r, root := newRecorder(t)
	fsys := r.FS()
	create := func(name, content string) {
		f := must[vfs.File](t)(fsys.OpenFile(filepath.Join(root, name), os.O_RDWR|os.O_CREATE,
			0o666))
		must[int](t)(f.WriteAt([]byte(content), 0))
		ok(t, f.Sync())
		ok(t, f.Close())
	}
	names := func(random int) map[string]bool {
		seen := make(map[string]bool)
		for _, im := range r.disks(random) {
			seen[string(im.Files["a"])+"|"+string(im.Files["b"])] = true
		}
		return seen
	}
	create("a", "1")
	if got := names(50); len(got) != 2 || !got["|"] || !got["1|"] {
		t.Errorf("after the creation: %v", got)
	}
	ok(t, fsys.SyncDir(root))
	create("b", "2")
	ok(t, fsys.SyncDir(root))
	ok(t, fsys.Rename(filepath.Join(root, "b"), filepath.Join(root, "a")))
	if got := names(50); len(got) != 2 || !got["1|2"] || !got["2|"] {
		t.Errorf("after the renaming: %v", got) // in particular neither "1|" nor "2|2"
	}
	ok(t, fsys.SyncDir(root))
	if got := names(50); len(got) != 1 || !got["2|"] {
		t.Errorf("after the sync: %v", got)
	}
	ok(t, fsys.Remove(filepath.Join(root, "a")))
	if got := names(50); len(got) != 2 || !got["|"] {
		t.Errorf("after the removal: %v", got)
	}
}

func TestLengthsBetweenTwoSyncsAreAllPossible(t *testing.T) {
	r, root := newRecorder(t)
	f := must[vfs.File](t)(r.FS().OpenFile(filepath.Join(root, "f"), os.O_RDWR|os.O_CREATE, 0o666))
	ok(t, r.FS().SyncDir(root))
	for _, size := range []int64{5000, 100, 9000} {
		ok(t, f.Truncate(size))
	}
	seen := make(map[int]bool)
	for _, im := range r.disks(100) {
		seen[len(im.Files["f"])] = true
	}
	for _, size := range []int{0, 5000, 100, 9000} {
		if !seen[size] {
			t.Errorf("length %d is missing from %v", size, seen)
		}
	}
}

// Without any random choice: a header that promises a length must meet a file without it, as when
// one sync has made only one of the two durable.
func TestLengthAndContentAreKeptWithoutEachOther(t *testing.T) {
	r, root := newRecorder(t)
	f := must[vfs.File](t)(r.FS().OpenFile(filepath.Join(root, "f"), os.O_RDWR|os.O_CREATE, 0o666))
	ok(t, r.FS().SyncDir(root))
	must[int](t)(f.WriteAt([]byte("old header, and the rest"), 0))
	ok(t, f.Sync())
	must[int](t)(f.WriteAt([]byte("new"), 0))
	ok(t, f.Truncate(10))
	seen := make(map[string]bool)
	for _, im := range r.disks(0) {
		seen[string(im.Files["f"])] = true
	}
	for _, want := range []string{"old header, and the rest", "new header", "old header",
		"new header" + strings.Repeat("\x00", 14)} {
		if !seen[want] {
			t.Errorf("%q is missing from %v", want, slices.Collect(maps.Keys(seen)))
		}
	}
}

func TestFailedSyncLosesPagesUntilTheyAreWrittenAgain(t *testing.T) {
	r, root := newRecorder(t)
	f := must[vfs.File](t)(r.FS().OpenFile(filepath.Join(root, "f"), os.O_RDWR|os.O_CREATE, 0o666))
	ok(t, r.FS().SyncDir(root))
	page := bytes.Repeat([]byte("n"), pageSize)
	must[int](t)(f.WriteAt(page, 0))
	must[int](t)(f.WriteAt(page, pageSize))
	r.FailSync = func(*Op) error { return syscall.EIO }
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	r.FailSync = nil
	durable := func() (pages int) {
		for _, im := range r.disks(0) {
			if im.Plan == "nothing kept" {
				pages = bytes.Count(im.Files["f"], page)
			}
		}
		return pages
	}
	ok(t, f.Sync())
	if got := durable(); got != 0 {
		t.Errorf("a sync after a failed one has made %d pages durable", got)
	}
	must[int](t)(f.WriteAt(page, pageSize)) // the same bytes
	ok(t, f.Sync())
	if got := durable(); got != 1 {
		t.Errorf("%d pages are durable, want the one that was written again", got)
	}
}

func TestSkippedSyncMakesNothingDurable(t *testing.T) {
	r, root := newRecorder(t)
	f := must[vfs.File](t)(r.FS().OpenFile(filepath.Join(root, "f"), os.O_RDWR|os.O_CREATE, 0o666))
	ok(t, r.FS().SyncDir(root))
	r.Skip = func(*Op) bool { return true }
	must[int](t)(f.WriteAt([]byte("x"), 0))
	ok(t, f.Sync())
	if im := r.disks(0)[0]; len(im.Files["f"]) != 0 {
		t.Errorf("%s: %q", im.Plan, im.Files["f"])
	}
}

func TestImageIsWrittenAsItIs(t *testing.T) {
	content := append(make([]byte, 3*pageSize+10), "end"...)
	content[pageSize+5] = 1
	im := &Image{Dirs: []string{"d"}, Files: map[string][]byte{"d/f": content, "empty": nil}}
	root := t.TempDir()
	ok(t, im.Write(root))
	for path, want := range im.Files {
		if got := must[[]byte](t)(os.ReadFile(filepath.Join(root, path))); !bytes.Equal(got, want) {
			t.Errorf("%s has %d bytes, or others", path, len(got))
		}
	}
}

// TestMappingIsSeenLikeItsFile: its syncs are operations, also when the file has been closed.
func TestMappingIsSeenLikeItsFile(t *testing.T) {
	r, root := newRecorder(t)
	var ops []string
	inj := NewInjector(0, EIO, false)
	fsys := Wrap(Wrap(r.FS(), inj.Layer), func(op *Op, do func() error) error {
		ops = append(ops, op.Kind.String())
		return do()
	})
	f := must[vfs.File](t)(fsys.OpenFile(filepath.Join(root, "f"), os.O_RDWR|os.O_CREATE, 0o666))
	must[int](t)(f.WriteAt(make([]byte, 4096), 0))
	ok(t, errors.Join(f.Sync(), fsys.SyncDir(root)))
	m := must[vfs.Mapping](t)(f.MapShared(4096))
	ok(t, f.Close())
	durable := func() byte {
		var left *Image
		r.Before = func(*Op) { left = r.CutNothing() }
		r.Point()
		r.Before = nil
		return left.Files["f"][7]
	}
	m.Bytes()[7] = 'x'
	if got := durable(); got != 0 {
		t.Errorf("%q is durable before the sync", got)
	}
	inj.mu.Lock()
	inj.k = inj.count + 1
	inj.mu.Unlock()
	if err := m.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("a sync that was to fail: %v", err)
	}
	inj.Heal()
	ok(t, m.Sync())
	if got := durable(); got != 'x' {
		t.Errorf("%q is durable after the sync", got)
	}
	ok(t, m.Unmap())
	want := []string{"open", "write", "sync", "syncdir", "map shared", "close", "sync", "sync",
		"unmap shared"}
	if !slices.Equal(ops, want) {
		t.Errorf("operations %v, want %v", ops, want)
	}
}
