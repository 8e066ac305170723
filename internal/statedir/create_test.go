package statedir

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// fillWith is a state of a few files, made as the real one is: the globals file last, by renaming.
func fillWith(dir, content string) func(vfs.FS) error {
	return func(fsys vfs.FS) error {
		for _, name := range append([]string{ModuleName, MemoryName}, WALNames...) {
			if err := WriteFile(fsys, filepath.Join(dir, name), []byte(content)); err != nil {
				return err
			}
		}
		globals := filepath.Join(dir, GlobalsName)
		if err := WriteFile(fsys, globals+".new", []byte(content)); err != nil {
			return err
		}
		if err := fsys.Rename(globals+".new", globals); err != nil {
			return err
		}
		return fsys.SyncDir(dir)
	}
}

func create(fsys vfs.FS, dir, content string) error {
	lock, err := Create(fsys, dir, BootID{}, fillWith(dir, content))
	if err != nil {
		return err
	}
	return lock.Close()
}

// wantWhole checks that dir holds the state with this content and nothing else.
func wantWhole(t *testing.T, dir, content string) {
	t.Helper()
	if exists, err := Exists(dir); err != nil || !exists {
		t.Fatalf("exists: %v, %v", exists, err)
	}
	for _, name := range append([]string{ModuleName, MemoryName, GlobalsName}, WALNames...) {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || string(got) != content {
			t.Fatalf("%s: %q, %v; want %q", name, got, err, content)
		}
	}
}

// places are where a state can be created.
var places = map[string]func(t *testing.T, dir string){
	"nothing": func(*testing.T, string) {},
	"an empty directory": func(t *testing.T, dir string) {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	},
	"the root of a volume": func(t *testing.T, dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "lost+found"), 0o700); err != nil {
			t.Fatal(err)
		}
	},
}

// cuts records what power cuts at any operation could leave of a tree.
type cuts struct {
	*faultfs.Recorder
	images map[uint64]*faultfs.Image
	last   *faultfs.Image // with nothing kept that is not durable
}

func newCuts(t *testing.T, root string) *cuts {
	t.Helper()
	rec, err := faultfs.NewRecorder(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rec.Close() })
	c := &cuts{Recorder: rec, images: make(map[uint64]*faultfs.Image)}
	rnd := rand.New(rand.NewPCG(1, 0))
	rec.Before = func(*faultfs.Op) {
		c.last = rec.CutNothing()
		for _, im := range rec.Cuts(rnd, 20) {
			c.images[im.Hash()] = im
		}
	}
	return c
}

// check holds that each image has the state s with this content, or none that could not be created
// anew, and counts the former.
func (c *cuts) check(t *testing.T, content string) (whole int) {
	t.Helper()
	for _, im := range c.images {
		work := scratch.Dir(t)
		if err := im.Write(work); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(work, "s")
		exists, err := Exists(dir)
		if err != nil {
			t.Fatalf("%s: %v", im.Plan, err)
		}
		if exists {
			whole++
			wantWhole(t, dir, content)
			continue
		}
		if err := create(vfs.OS, dir, "anew"); err != nil {
			t.Fatalf("%s: a second creation: %v", im.Plan, err)
		}
		wantWhole(t, dir, "anew")
	}
	return whole
}

// After a power cut at any operation of a creation, with whatever of it the disk has kept, there is
// the state or none, and the creation can be repeated. When Create returns the state is there to
// stay.
func TestPowerCutLeavesAWholeStateOrNone(t *testing.T) {
	for name, prepare := range places {
		t.Run(name, func(t *testing.T) {
			root := scratch.Dir(t)
			prepare(t, filepath.Join(root, "s"))
			c := newCuts(t, root)
			if err := create(c.FS(), filepath.Join(root, "s"), "first"); err != nil {
				t.Fatal(err)
			}
			c.Point()
			whole := c.check(t, "first")
			t.Logf("%d images, %d with a state", len(c.images), whole)
			if whole == 0 || whole == len(c.images) {
				t.Error("the images are not of both kinds")
			}
			if c.last.Files[filepath.Join("s", GlobalsName)] == nil {
				t.Error("the state was not on the disk when its creation ended")
			}
		})
	}
}

// A creation that fails clears up, and a power cut while it does leaves nothing that could be taken
// for a state.
func TestPowerCutWhileACreationIsUndone(t *testing.T) {
	for name, prepare := range places {
		t.Run(name, func(t *testing.T) {
			root := scratch.Dir(t)
			prepare(t, filepath.Join(root, "s"))
			c := newCuts(t, root)
			dir := filepath.Join(root, "s")
			_, err := Create(c.FS(), dir, BootID{}, func(fsys vfs.FS) error {
				// Its names become durable, as they may at any time.
				err := WriteFile(fsys, filepath.Join(dir, ModuleName), nil)
				return errors.Join(err, fsys.(*batch).flush(), errFirstRun)
			})
			if !errors.Is(err, errFirstRun) {
				t.Fatal(err)
			}
			c.Point()
			if whole := c.check(t, ""); whole > 0 {
				t.Errorf("%d of %d images have a state", whole, len(c.images))
			}
		})
	}
}

// A failed operation leaves the state or none, and no files either; a second creation succeeds.
func TestFailedCreationLeavesNothing(t *testing.T) {
	for name, prepare := range places {
		t.Run(name, func(t *testing.T) {
			for _, forever := range []bool{false, true} {
				for k := 1; ; k++ {
					dir := filepath.Join(scratch.Dir(t), "s")
					prepare(t, dir)
					before := tree(t, dir)
					inj := faultfs.NewInjector(k, faultfs.EIO, forever)
					err := create(faultfs.Wrap(vfs.OS, inj.Layer), dir, "first")
					if len(inj.Failed()) == 0 {
						t.Logf("%d operations", k-1)
						break
					}
					exists, existsErr := Exists(dir)
					if existsErr != nil || err == nil && !exists {
						t.Fatalf("%v: exists %v, %v", &inj.Failed()[0], exists, existsErr)
					}
					if exists {
						wantWhole(t, dir, "first")
						continue
					}
					if after := tree(t, dir); !forever && after != before {
						t.Errorf("%v: left behind: %s", &inj.Failed()[0], after)
					}
					if err := create(vfs.OS, dir, "second"); err != nil {
						t.Fatalf("%v: a second creation: %v", &inj.Failed()[0], err)
					}
					wantWhole(t, dir, "second")
				}
			}
		})
	}
}

// tree lists what is below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		list = append(list, path)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

// A host function that panics in a module's first run must not leave the state locked or half made.
func TestPanicInCreationLeavesNothing(t *testing.T) {
	dir := filepath.Join(scratch.Dir(t), "s")
	func() {
		defer func() {
			if recover() != "first run" {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = Create(vfs.OS, dir, BootID{}, func(fsys vfs.FS) error {
			if err := WriteFile(fsys, filepath.Join(dir, ModuleName), nil); err != nil {
				t.Error(err)
			}
			panic("first run")
		})
	}()
	if got := tree(t, dir); got != dir && got != "" {
		t.Errorf("left behind: %s", got)
	}
	if err := create(vfs.OS, dir, "second"); err != nil {
		t.Fatal(err)
	}
}

// What is beside a state is none of its creation's business, whatever its name, and neither is what
// is in the directory, unless mmrun has put it there.
func TestCreationTouchesNothingOfOthers(t *testing.T) {
	root := scratch.Dir(t)
	for _, name := range []string{".a.new-ANYTHING", ".a.new", "a.new", "creating"} {
		if err := WriteFile(vfs.OS, filepath.Join(mkdir(t, root, name), "precious"),
			nil); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, root)
	if err := create(vfs.OS, filepath.Join(root, "a"), "state"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	if after := tree(t, root); after != before {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
	for _, name := range []string{"notes.txt", "wal.2"} {
		dir := mkdir(t, root, "full-"+name)
		if err := WriteFile(vfs.OS, filepath.Join(dir, name), nil); err != nil {
			t.Fatal(err)
		}
		before := tree(t, dir)
		err := create(vfs.OS, dir, "x")
		if !errors.Is(err, errs.ErrCorrupt) || !strings.Contains(err.Error(), name) {
			t.Errorf("creation beside %s: %v", name, err)
		}
		if after := tree(t, dir); after != before {
			t.Errorf("before: %s\nafter: %s", before, after)
		}
	}
}

func mkdir(t *testing.T, root, name string) string {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A state that has lost its globals file is damaged. It must not pass for a creation that was cut
// off, whose files may go.
func TestStateWithoutGlobalsIsNotCreatedAnew(t *testing.T) {
	dir := filepath.Join(scratch.Dir(t), "s")
	if err := create(vfs.OS, dir, "state"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, GlobalsName)); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	if exists, err := Exists(dir); err != nil || !exists {
		t.Errorf("exists: %v, %v", exists, err)
	}
	if err := create(vfs.OS, dir, "another"); !errors.Is(err, errs.ErrLocked) {
		t.Errorf("%v", err)
	}
	if after := tree(t, dir); after != before {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
}

// Whoever creates the same state at the same time gets it, or is told that another one has it, and
// what is there is whole: also when some of the creations fail and clear up behind themselves.
func TestConcurrentCreationsGiveOneWholeState(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 30
	}
	for name, prepare := range places {
		t.Run(name, func(t *testing.T) {
			for range rounds {
				dir := filepath.Join(scratch.Dir(t), "s")
				prepare(t, dir)
				won := make(chan string, 8)
				var all sync.WaitGroup
				for i := range 8 {
					content := fmt.Sprint("by ", i)
					all.Go(func() {
						lock, err := Create(vfs.OS, dir, BootID{}, func(fsys vfs.FS) error {
							if i%4 == 3 {
								_ = WriteFile(fsys, filepath.Join(dir, ModuleName), []byte(content))
								return errFirstRun
							}
							return fillWith(dir, content)(fsys)
						})
						switch {
						case err == nil:
							won <- content
							if err := lock.Close(); err != nil {
								t.Error(err)
							}
						case !errors.Is(err, errs.ErrLocked) && !errors.Is(err, errFirstRun):
							t.Errorf("%s: %v", content, err)
						}
					})
				}
				all.Wait()
				if len(won) > 1 {
					t.Fatalf("%d have created the state", len(won))
				}
				if len(won) == 1 {
					wantWhole(t, dir, <-won)
				} else if exists, err := Exists(dir); exists || err != nil {
					t.Fatalf("nobody has created it, and it is there: %v, %v", exists, err)
				}
			}
		})
	}
}

var errFirstRun = errors.New("the first run trapped")

// The syncs of a creation come after its writes, one a file.
func TestCreationSyncsEachFileOnce(t *testing.T) {
	dir := filepath.Join(scratch.Dir(t), "s")
	syncs := make(map[string]int)
	written := ""
	fsys := faultfs.Wrap(vfs.OS, func(op *faultfs.Op, do func() error) error {
		switch op.Kind {
		case faultfs.Sync:
			syncs[filepath.Base(op.Path)]++
		case faultfs.WriteAt:
			if len(syncs) > 0 {
				written = op.Path
			}
		}
		return do()
	})
	if err := create(fsys, dir, "state"); err != nil {
		t.Fatal(err)
	}
	for name, n := range syncs {
		if n != 1 {
			t.Errorf("%d syncs of %s", n, name)
		}
	}
	if len(syncs) != 5 || written != "" {
		t.Errorf("syncs: %v; written after one: %q", syncs, written)
	}
}

func TestReadModule(t *testing.T) {
	dir := scratch.Dir(t)
	path := filepath.Join(dir, ModuleName)
	wasm := bytes.Repeat([]byte("module"), 1000)
	if err := os.WriteFile(path, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	want := sha256.Sum256(wasm)
	if got, err := ReadModule(vfs.OS, dir, want); err != nil || !bytes.Equal(got, wasm) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	// Long and sparse: refused without taking memory for it.
	for _, size := range []int64{MaxModule, 1 << 40} {
		if err := os.Truncate(path, size); err != nil {
			t.Skip(err)
		}
		before := allocated()
		_, err := ReadModule(vfs.OS, dir, want)
		if !errors.Is(err, errs.ErrCorrupt) && !errors.Is(err, vfs.ErrTooLarge) {
			t.Errorf("%d bytes: %v", size, err)
		}
		if took := allocated() - before; took > 1<<20 {
			t.Errorf("%d bytes: took %d bytes of memory", size, took)
		}
		if testing.Short() {
			break
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func BenchmarkCreate(b *testing.B) {
	root, made := b.TempDir(), 0
	for _, batched := range []bool{true, false} {
		b.Run(fmt.Sprintf("batched=%v", batched), func(b *testing.B) {
			for range b.N {
				made++
				dir := filepath.Join(root, fmt.Sprint(made))
				fill := fillWith(dir, strings.Repeat("content ", 2048))
				if !batched {
					inner := fill
					fill = func(fsys vfs.FS) error { return inner(fsys.(*batch).FS) }
				}
				lock, err := Create(vfs.OS, dir, BootID{}, fill)
				if err != nil {
					b.Fatal(err)
				}
				lock.Close()
			}
		})
	}
}
