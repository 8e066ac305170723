package statedir

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// What a status says depends on who reads it: its own file or a copy, in its own generation or not.
func TestLastExit(t *testing.T) {
	own := identity{"gen", "file"}
	for _, c := range []struct {
		status string
		own    identity
		want   LastExit
	}{
		{"", own, LastExit{}},
		{"closed gen file", own, LastExit{CleanClose: true, CacheIntact: true, FilesSynced: true}},
		{"closed gen other", own, LastExit{CacheIntact: true}},
		{"closed other file", own, LastExit{}},
		{"open gen file", own, LastExit{CacheIntact: true, FilesSynced: true}},
		{"open gen other", own, LastExit{CacheIntact: true, CopiedOpen: true}},
		{"open other file", own, LastExit{}},
		{"open other other", own, LastExit{CopiedOpen: true}},
		{"begun gen file", own, LastExit{}},
		{"begun gen other", own, LastExit{CopiedOpen: true}},
		// What is not known is the same as nothing else that is not known.
		{"closed - -", identity{unknown, unknown}, LastExit{}},
		{"open - -", identity{unknown, unknown}, LastExit{}},
		{"open gen -", own, LastExit{CacheIntact: true}},
		{"open gen file", identity{unknown, "file"}, LastExit{}},
		{"open gen file", identity{"gen", unknown}, LastExit{CacheIntact: true}},
		// Not ours.
		{"open gen", own, LastExit{}},
		{"ajar gen file", own, LastExit{}},
		{"closed gen file and more", own, LastExit{}},
	} {
		if got := lastExit(c.status, c.own); got != c.want {
			t.Errorf("%q read by %v: %+v, want %+v", c.status, c.own, got, c.want)
		}
	}
}

// statusIn is the status in the lock file of a state, without whose it is.
func statusIn(t *testing.T, dir string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, LockName))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitN(string(content), "\n", 3)
	if len(lines) != 3 || lines[0] != fmt.Sprint(os.Getpid()) ||
		strings.Trim(lines[2], "\n") != "" {
		t.Errorf("the lock file holds %q", content)
	}
	word, _, _ := strings.Cut(lines[1], " ")
	return word
}

// An owner that dies while it recovers leaves what was said before it, and takes back that a state
// is closed.
func TestStatusOverTheLivesOfAState(t *testing.T) {
	dir := t.TempDir()
	boot := BootID{1}
	step := func(want string, act func(*Lock) error) {
		t.Helper()
		lock, err := Acquire(dir, boot)
		if err == nil {
			err = errors.Join(act(lock), lock.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := statusIn(t, dir); got != want {
			t.Errorf("status is %q, want %q", got, want)
		}
	}
	dies := func(*Lock) error { return nil }
	step("begun", dies)
	step("open", (*Lock).SayOpen)
	step("open", dies)
	step("closed", (*Lock).SayClosed)
	step("begun", dies)
	step("begun", dies)
	step("open", (*Lock).SayOpen)
	step("begun", (*Lock).SayFailed)
	later := "1\nfrozen by a later version\n"
	if err := os.WriteFile(filepath.Join(dir, LockName), []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	step("frozen", dies)
	step("open", (*Lock).SayOpen)
}

// A copy of a state that was not closed stays one, however often it is looked at.
func TestCopyStaysACopyUntilItIsOpen(t *testing.T) {
	if _, ok := fileOf(os.Stdin); !ok {
		t.Skip("this system does not tell files from their copies")
	}
	for _, say := range []func(*Lock) error{(*Lock).SayOpen, (*Lock).SayFailed} {
		dir, copied := t.TempDir(), t.TempDir()
		original, err := Acquire(dir, BootID{1})
		if err == nil {
			err = say(original)
		}
		if err != nil {
			t.Fatal(err)
		}
		defer original.Close()
		content, err := os.ReadFile(filepath.Join(dir, LockName))
		if err == nil {
			err = os.WriteFile(filepath.Join(copied, LockName), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		last := func() LastExit {
			t.Helper()
			release, shared, err := KeepOut(copied, BootID{1})
			if err != nil {
				t.Fatal(err)
			}
			release()
			lock, err := Acquire(copied, BootID{1})
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			if lock.Last != shared {
				t.Errorf("an owner is told %+v, a reader %+v", lock.Last, shared)
			}
			if last := lock.Last; !last.CopiedOpen {
				return last
			}
			return LastExit{CopiedOpen: true}
		}
		for range 3 {
			if got := last(); !got.CopiedOpen {
				t.Fatalf("%+v, want that it is a copy", got)
			}
		}
		lock, err := Acquire(copied, BootID{1})
		if err == nil {
			err = errors.Join(lock.SayOpen(), lock.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := last(); got.CopiedOpen {
			t.Errorf("%+v, though it has been opened", got)
		}
	}
}

func TestLockOfThisProcessAndOfAnother(t *testing.T) {
	dir := t.TempDir()
	wants := func(part string) {
		t.Helper()
		_, err := Acquire(dir, BootID{})
		if !errors.Is(err, errs.ErrLocked) || !strings.Contains(err.Error(), part) {
			t.Errorf("%v, want ErrLocked and %q", err, part)
		}
	}
	lock, err := Acquire(dir, BootID{})
	if err != nil {
		t.Fatal(err)
	}
	wants("in use by this process")
	if u, err := Use(dir, BootID{}); err != nil || !u.InUse || u.Owner != os.Getpid() {
		t.Errorf("%+v, %v", u, err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if u, err := Use(dir, BootID{}); err != nil || u.InUse {
		t.Errorf("%+v, %v", u, err)
	}

	other := exec.Command(os.Args[0], "-test.run=TestHoldLock", "-test.v")
	other.Env = append(os.Environ(), "MMRUN_HOLD_LOCK="+dir)
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err == nil {
		err = other.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan() && !strings.Contains(lines.Text(), "locked"); {
	}
	wants(fmt.Sprintf("in use by process %d", other.Process.Pid))
	if err := errors.Join(in.Close(), other.Wait()); err != nil {
		t.Fatal(err)
	}
	// Another container may have given its process this number.
	if lock, err = Acquire(dir, BootID{}); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestHoldLock is the other process of the test above.
func TestHoldLock(t *testing.T) {
	dir := os.Getenv("MMRUN_HOLD_LOCK")
	if dir == "" {
		t.Skip("not the other process")
	}
	lock, err := Acquire(dir, BootID{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("locked")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is closed
	lock.Close()
}

// A lock on a file that has lost its name is worth nothing: a creation that fails removes its own,
// and another process may have opened it before.
func TestLockIsOnTheFileWithTheName(t *testing.T) {
	dir := scratch.Dir(t)
	var holders, rounds atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for rounds.Load() < 4000 {
				f, err := lockFile(dir)
				if errors.Is(err, errs.ErrLocked) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if holders.Add(1) > 1 {
					t.Error("two hold the lock")
				}
				runtime.Gosched()
				holders.Add(-1)
				if n := rounds.Add(1); n%2 == 0 {
					if err := os.Remove(f.Name()); err != nil {
						t.Error(err)
					}
				}
				if err := unlock(f); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}
