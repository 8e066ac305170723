//go:build unix

package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// within fails a test whose function hangs, instead of waiting for the timeout of all tests.
func within(t *testing.T, limit time.Duration, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatalf("%s hangs", what)
	}
}

// intruders are what can be put in the place of a file. What is in the file is kept outside.
var intruders = map[string]func(path, outside string) error{
	"a link":      func(path, outside string) error { return os.Symlink(outside, path) },
	"a loop":      func(path, _ string) error { return os.Symlink(path, path) },
	"a pipe":      func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
	"a directory": func(path, _ string) error { return os.Mkdir(path, 0o700) },
	"a socket": func(path, _ string) error {
		// The path of a socket is short.
		short := filepath.Join(os.TempDir(), fmt.Sprintf("mmrun-%d.sock", os.Getpid()))
		l, err := net.Listen("unix", short)
		if err != nil {
			return err
		}
		defer l.Close()
		return errors.Join(os.Link(short, path), os.Remove(short))
	},
	"a device": func(path, _ string) error {
		const null = 1<<8 | 3
		return unix.Mknod(path, unix.S_IFCHR|0o600, null)
	},
}

// Whatever is in the place of a file of a state: no link is followed, nothing is waited for, and
// Open says what is wrong.
func TestWhatIsNoFileIsRefused(t *testing.T) {
	rt := newRuntime(t)
	for _, mode := range modes {
		base := filepath.Join(t.TempDir(), "s")
		in := open(t, rt, base, guests.Load(t, "stores"), mmrun.WithMode(mode),
			mmrun.WithWALSize(mmrun.MinWALSize))
		call(t, in, "one", 8, 42)
		closeInstance(t, in)
		files := readSnapshot(t, base)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			for _, kind := range slices.Sorted(maps.Keys(intruders)) {
				t.Run(fmt.Sprintf("%v/%s is %s", mode, name, kind), func(t *testing.T) {
					root := t.TempDir()
					dir, outside := filepath.Join(root, "s"), filepath.Join(root, "outside")
					prepare := func() {
						files.write(t, dir)
						if err := os.WriteFile(outside, files[name], 0o600); err != nil {
							t.Fatal(err)
						}
						if err := os.Remove(filepath.Join(dir, name)); err != nil {
							t.Fatal(err)
						}
						err := intruders[kind](filepath.Join(dir, name), outside)
						if errors.Is(err, fs.ErrPermission) {
							t.Skip(err)
						}
						if err != nil {
							t.Fatal(err)
						}
					}
					for what, fn := range map[string]func(){
						"open": func() {
							in, err := mmrun.Open(ctx, rt, dir, nil)
							if err == nil {
								_ = in.Close(ctx)
								t.Error("it was opened")
								return
							}
							if !errors.Is(err, mmrun.ErrCorrupt) ||
								!strings.Contains(err.Error(), name) {
								t.Errorf("open: %v, want ErrCorrupt and the name", err)
							}
						},
						"open with the module": func() {
							if in, err := mmrun.Open(ctx, rt, dir,
								guests.Load(t, "stores")); err == nil {
								_ = in.Close(ctx)
								if name != "module.wasm" {
									t.Error("it was opened")
								}
							}
						},
						"inspect": func() { _, _ = fsck.Inspect(dir) },
						"verify": func() {
							if v, err := fsck.Verify(dir); err == nil && v.Sound {
								t.Error("it is called sound")
							}
						},
						"repair": func() { _, _ = fsck.Repair(dir, true) },
					} {
						prepare()
						within(t, 20*time.Second, what, fn)
						got, err := os.ReadFile(outside)
						if err != nil || string(got) != string(files[name]) {
							t.Errorf("%s: the file outside has changed (%v)", what, err)
						}
					}
				})
			}
		}
	}
}

// A link to a state directory is as good as the directory.
func TestStateBehindALink(t *testing.T) {
	root := t.TempDir()
	dir, link := filepath.Join(root, "s"), filepath.Join(root, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	rt := newRuntime(t)
	_, err := mmrun.Open(ctx, rt, link, guests.Load(t, "counter"))
	if err == nil || !strings.Contains(err.Error(), "link to "+dir) {
		t.Errorf("a link to nothing: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	closeInstance(t, open(t, rt, link, guests.Load(t, "counter")))
	if got := call(t, open(t, rt, dir, nil), "inc"); got != 1 {
		t.Errorf("inc gave %d", got)
	}
}

// What mmrun makes is its owner's alone, at whatever time it is made.
func TestNobodyElseMayTouchAState(t *testing.T) {
	defer unix.Umask(unix.Umask(0))
	rt := newRuntime(t)
	for _, mode := range modes {
		dir := filepath.Join(t.TempDir(), "s")
		in := open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithMode(mode),
			mmrun.WithWALSize(mmrun.MinWALSize))
		err := in.Update(ctx, func(tx *mmrun.Tx) error {
			tx.SetMeta(make([]byte, 100_000))
			return nil
		})
		if err != nil {
			t.Fatal(err) // the globals file grows
		}
		call(t, in, "grow", 3)
		if err := in.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
		closeInstance(t, in)
		if mode == mmrun.Continuous {
			closeInstance(t, open(t, rt, dir, nil, mmrun.WithMode(mmrun.Atomic)))
		}
		if err := os.Truncate(filepath.Join(dir, "wal.0"), 100); err != nil {
			t.Fatal(err)
		}
		if r, err := fsck.Repair(dir, true); err != nil || r.Backup == "" {
			t.Fatalf("%+v, %v", r, err)
		}
		err = filepath.WalkDir(filepath.Dir(dir),
			func(path string, e fs.DirEntry, err error) error {
				if err != nil || path == filepath.Dir(dir) {
					return err
				}
				info, err := e.Info()
				if err == nil && info.Mode().Perm()&0o077 != 0 {
					t.Errorf("%s is %v", path, info.Mode())
				}
				return err
			})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The present directory and the root of a volume can become a state.
func TestEmptyDirectoryBecomesAState(t *testing.T) {
	rt, wasm := newRuntime(t), guests.Load(t, "counter")
	t.Run("the present directory", func(t *testing.T) {
		t.Chdir(t.TempDir())
		for want := range uint64(2) {
			in := open(t, rt, ".", wasm)
			if got := call(t, in, "inc"); got != want+1 {
				t.Errorf("inc gave %d, want %d", got, want+1)
			}
			closeInstance(t, in)
		}
	})
	t.Run("a directory with something in it", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := mmrun.Open(ctx, rt, dir, wasm)
		if !errors.Is(err, mmrun.ErrCorrupt) || !strings.Contains(err.Error(), "notes.txt") {
			t.Errorf("%v, want ErrCorrupt and the name", err)
		}
		if s := readSnapshot(t, dir); len(s) != 1 {
			t.Errorf("it holds %v now", slices.Collect(maps.Keys(s)))
		}
	})
}

// Whoever opens a state that does not exist yet at the same time gets ErrLocked or the state.
func TestConcurrentOpensOfANewState(t *testing.T) {
	rounds := 100
	if testing.Short() {
		rounds = 15
	}
	rt, wasm := newRuntime(t), guests.Load(t, "counter")
	for range rounds {
		dir := filepath.Join(t.TempDir(), "s")
		var all sync.WaitGroup
		for range 6 {
			all.Go(func() {
				in, err := mmrun.Open(ctx, rt, dir, wasm, mmrun.WithWALSize(mmrun.MinWALSize))
				switch {
				case errors.Is(err, mmrun.ErrLocked):
				case err != nil:
					t.Error(err)
				default:
					if _, err := in.Call(ctx, "inc"); err != nil {
						t.Error(err)
					}
					if err := in.Close(ctx); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		in := open(t, rt, dir, nil)
		if in.Seq() < 2 {
			t.Errorf("commit %d: nobody has had the state", in.Seq())
		}
		closeInstance(t, in)
	}
}

// The message says whose the lock is, and that of this process does not blame another one.
func TestSecondOpenIsToldWhoHasTheState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	rt := newRuntime(t)
	open(t, rt, dir, guests.Load(t, "counter"))
	_, err := mmrun.Open(ctx, rt, dir, nil)
	if !errors.Is(err, mmrun.ErrLocked) || !strings.Contains(err.Error(),
		"in use by this process") {
		t.Errorf("%v", err)
	}
}

// copyWhile copies the files of a state in the order of names; between is called before each file
// but the first.
func copyWhile(t *testing.T, to, from string, names []string, between func()) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if i > 0 {
			between()
		}
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A copy of the files of a continuous state that is open may have them from different times, and
// nothing in them tells. So it is refused, until somebody says that it is to be taken as it is. A
// copy of a closed state is opened.
func TestCopyOfAnOpenContinuousStateIsRefused(t *testing.T) {
	rt := newRuntime(t)
	dir := filepath.Join(t.TempDir(), "s")
	in := open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithMode(mmrun.Continuous))
	names := slices.Sorted(maps.Keys(readSnapshot(t, dir)))
	event := func() { call(t, in, "one", 8, in.Seq()) }
	copies := 0
	refuse := func(what, to string) {
		t.Helper()
		copies++
		for range 2 { // the first attempt must not make it look like an original
			if in, err := mmrun.Open(ctx, rt, to, nil); !errors.Is(err, mmrun.ErrTorn) {
				t.Errorf("%s: %v, want ErrTorn", what, err)
				if err == nil {
					_ = in.Close(ctx)
				}
			}
		}
		if v, err := fsck.Verify(to); err != nil || v.Sound {
			t.Errorf("%s: verify: %+v, %v", what, v, err)
		}
	}
	for what, prepare := range map[string]func(){
		"just opened": func() {},
		"after events": func() {
			event()
			event()
		},
		"after a sync": func() {
			event()
			if err := in.Sync(ctx); err != nil {
				t.Fatal(err)
			}
		},
	} {
		for between, fn := range map[string]func(){
			"nothing": func() {}, "an event": event,
			"an event and a sync": func() {
				event()
				if err := in.Sync(ctx); err != nil {
					t.Fatal(err)
				}
			},
		} {
			for turn := range names {
				order := append(slices.Clone(names[turn:]), names[:turn]...)
				prepare()
				to := filepath.Join(t.TempDir(), "copy")
				copyWhile(t, to, dir, order, fn)
				refuse(fmt.Sprintf("copied %s, %s between two of %v", what, between, order), to)
			}
		}
	}
	t.Logf("%d copies", copies)
	// As it is.
	to := filepath.Join(t.TempDir(), "copy")
	copyWhile(t, to, dir, names, event)
	forced := open(t, rt, to, nil, mmrun.WithAcceptTorn())
	call(t, forced, "one", 8, 1)
	closeInstance(t, forced)
	closeInstance(t, open(t, rt, to, nil))
	// Repaired.
	to = filepath.Join(t.TempDir(), "copy")
	copyWhile(t, to, dir, names, event)
	if _, err := fsck.Repair(to, false); !errors.Is(err, mmrun.ErrTorn) {
		t.Errorf("repair: %v, want ErrTorn", err)
	}
	if r, err := fsck.Repair(to, true); err != nil || len(r.Lost) == 0 {
		t.Errorf("repair with force: %+v, %v", r, err)
	}
	closeInstance(t, open(t, rt, to, nil))

	closeInstance(t, in)
	to = filepath.Join(t.TempDir(), "copy")
	at := slices.Index(names, "lock")
	first := append([]string{"lock"}, slices.Delete(slices.Clone(names), at, at+1)...)
	again := sync.OnceFunc(func() { in = open(t, rt, dir, nil) })
	copyWhile(t, to, dir, first, func() {
		again()
		event()
	})
	refuse("opened after its lock file was copied", to)
	closeInstance(t, in)
	to = filepath.Join(t.TempDir(), "copy")
	copyWhile(t, to, dir, names, func() {})
	if v, err := fsck.Verify(to); err != nil || !v.Sound {
		t.Errorf("a copy of the closed state: %+v, %v", v, err)
	}
	closeInstance(t, open(t, rt, to, nil))
}
