package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// killedAndDamaged is a state of five commits that were never synced. The process is gone, and the
// record of the fourth commit is damaged.
func killedAndDamaged(t *testing.T, m *machine, boot [16]byte) (dir string) {
	t.Helper()
	dir = filepath.Join(scratch.Dir(t), "s")
	in, err := m.open(dir, vfs.OS, true, mmrun.WithSync(mmrun.SyncNever), withBootID(boot))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(4) {
		if err := runEvent(in, event("2 KB", do("fill", 0, 2000, i+1)), nil); err != nil {
			t.Fatal(err)
		}
	}
	abandon(in)
	d := &damager{fs: vfs.OS, dir: dir}
	d.flip(statedir.WALNames[0], 4096+2*2048+1000)
	if d.err != nil {
		t.Fatal(d.err)
	}
	return dir
}

// needsStatus skips a test where the system does not tell one boot or mount from another.
func needsStatus(t *testing.T, dir string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, statedir.LockName))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(content), "\nopen ") {
		t.Skip("this system does not tell a kill from a power cut")
	}
}

// Commits that were not synced are there after a kill. If they cannot be read, they are damaged.
func TestDamageOfUnsyncedCommitsIsFoundAfterAKill(t *testing.T) {
	m := newMachine(t)
	dir := killedAndDamaged(t, m, bootOfWorkload)
	needsStatus(t, dir)
	for range 2 { // the first one leaves everything as it is
		if _, err := m.open(dir, vfs.OS, false, withBootID(bootOfWorkload)); !errors.Is(err,
			mmrun.ErrCorrupt) {
			t.Fatalf("open: %v, want ErrCorrupt", err)
		}
	}
	if v, err := checkVerify(vfs.OS, bootOfWorkload, dir); err != nil || v.Sound {
		t.Errorf("verify: %+v, %v", v, err)
	}
	r, err := checkRepair(vfs.OS, bootOfWorkload, dir, false)
	if err != nil || r.Seq != 3 || len(r.Lost) == 0 {
		t.Fatalf("repair: %+v, %v", r, err)
	}
	in, err := m.open(dir, vfs.OS, false, withBootID(bootOfWorkload))
	if err != nil || in.Seq() != 3 {
		t.Fatalf("after a repair: %v", err)
	}
	abandon(in)
}

// After a power cut the same is what the cut has left. It stays that when a process dies while it
// recovers.
func TestUnsyncedCommitsMayBeLostInAPowerCut(t *testing.T) {
	m := newMachine(t)
	dir := killedAndDamaged(t, m, bootOfWorkload)
	if v, err := checkVerify(vfs.OS, bootAfterCut, dir); err != nil || !v.Sound || v.Seq != 3 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	for k := 1; ; k++ {
		dir := killedAndDamaged(t, m, bootOfWorkload)
		inj := faultfs.NewInjector(k, faultfs.EIO, true)
		in, err := m.open(dir, faultfs.Wrap(vfs.OS, inj.Layer), false, withBootID(bootAfterCut))
		if err == nil {
			abandon(in)
		}
		if in, err = m.open(dir, vfs.OS, false, withBootID(bootAfterCut)); err != nil ||
			in.Seq() != 3 {
			t.Fatalf("after a death at operation %d of the recovery: %v", k, err)
		}
		abandon(in)
		if len(inj.Failed()) == 0 {
			t.Logf("%d deaths", k-1)
			return
		}
	}
}

// A file system that was unmounted meanwhile may have lost what was not synced, as in a power cut.
func TestAnotherMountIsAsGoodAsAPowerCut(t *testing.T) {
	m := newMachine(t)
	dir := killedAndDamaged(t, m, bootOfWorkload)
	needsStatus(t, dir)
	another := []byte("1\nopen 0123456789abcdef 0123456789abcdef\n")
	if err := os.WriteFile(filepath.Join(dir, statedir.LockName), another, 0o666); err != nil {
		t.Fatal(err)
	}
	in, err := m.open(dir, vfs.OS, false, withBootID(bootOfWorkload))
	if err != nil || in.Seq() != 3 {
		t.Fatalf("open: %v", err)
	}
	abandon(in)
}

// A copy of a state may be nowhere but in the page cache, whatever the lock file that was copied
// with it says.
func TestCopyOfAStateIsOnTheDiskBeforeACommit(t *testing.T) {
	for _, closed := range []bool{true, false} {
		t.Run(fmt.Sprint("closed=", closed), func(t *testing.T) {
			m, root := newMachine(t), scratch.Dir(t)
			copied := filepath.Join(root, "s")
			want := predict(t, m.rt, m.wasm, mmrun.Atomic,
				append(repairSteps(), event("one more", do("one", 16, 9))))
			killed := damaged{mode: mmrun.Atomic, hurt: func(*damager) {}}
			dir, _, err := killed.make(m, vfs.OS, scratch.Dir(t))
			if err != nil {
				t.Fatal(err)
			}
			if closed {
				in, err := m.open(dir, vfs.OS, false, withBootID(bootOfWorkload))
				if err == nil {
					err = in.Close(bg)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			rec, err := faultfs.NewRecorder(root)
			if err != nil {
				t.Fatal(err)
			}
			defer rec.Close()
			fsys := rec.FS()
			if err := fsys.Mkdir(copied, 0o777); err != nil {
				t.Fatal(err)
			}
			files, err := filesOf(dir)
			if err != nil {
				t.Fatal(err)
			}
			for name, content := range files {
				f, err := fsys.OpenFile(filepath.Join(copied, name), os.O_RDWR|os.O_CREATE, 0o666)
				if err == nil {
					_, err = f.WriteAt(content, 0)
					err = errors.Join(err, f.Close())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			status, err := os.ReadFile(filepath.Join(dir, statedir.LockName))
			if err == nil {
				err = os.WriteFile(filepath.Join(copied, statedir.LockName), status, 0o666)
			}
			if err != nil {
				t.Fatal(err)
			}
			in, err := m.open(copied, fsys, false, mmrun.WithSync(mmrun.SyncAlways),
				withBootID(bootOfWorkload))
			if err != nil {
				t.Fatal(err)
			}
			if err := runEvent(in, event("one more", do("one", 16, 9)), nil); err != nil {
				t.Fatal(err)
			}
			seq := in.Seq()
			var after *faultfs.Image
			rec.Before = func(*faultfs.Op) { after = rec.CutNothing() }
			rec.Point()
			rec.Before = nil
			abandon(in)
			work := filepath.Join(root, "image")
			if err := os.Mkdir(work, 0o777); err != nil {
				t.Fatal(err)
			}
			if err := after.Write(work); err != nil {
				t.Fatal(err)
			}
			if in, err = m.open(filepath.Join(work, "s"), vfs.OS, false,
				withBootID(bootAfterCut)); err != nil {
				t.Fatalf("after a power cut: %v", err)
			}
			defer func() { abandon(in) }()
			if in.Seq() != seq {
				t.Errorf("commit %d came back, %d had been acknowledged", in.Seq(), seq)
			}
			if err := errors.Join(checkState(in, want), checkSums(in)); err != nil {
				t.Error(err)
			}
		})
	}
}

// What an interrupted checkpoint of a larger memory, or damage, has left in the page sums behind
// the memory's end must not be held against the pages of the next growth.
func TestSumsBehindTheEndAreForgotten(t *testing.T) {
	m, dir := newMachine(t), filepath.Join(scratch.Dir(t), "s")
	in, err := m.open(dir, vfs.OS, true)
	if err == nil {
		err = in.Close(bg)
	}
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.OpenFile(filepath.Join(dir, statedir.ChecksumsName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer sums.Close()
	// the first page of the second wasm page
	if _, err := sums.WriteAt([]byte{1}, 64+16*4); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if in, err = m.open(dir, vfs.OS, false); err != nil {
			t.Fatal(err)
		}
		if err := runEvent(in, event("growth", do("grow", 1), do("one", 65536, 1)),
			nil); err != nil {
			t.Fatal(err)
		}
		if err := in.Close(bg); err != nil {
			t.Fatal(err)
		}
	}
}
