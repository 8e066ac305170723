package mmrun

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/internal/disk"
	"github.com/mmrun/mmrun/internal/faultfs"
	"github.com/mmrun/mmrun/internal/scratch"
)

// killedAndDamaged is a state of five commits that were never synced. The process is gone, and the record of the fourth
// commit is damaged.
func killedAndDamaged(t *testing.T, m *machine, boot [16]byte) (dir string) {
	t.Helper()
	dir = filepath.Join(scratch.Dir(t), "s")
	in, err := m.open(dir, disk.OS, true, WithSync(SyncNever), withBootID(boot))
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(4) {
		if err := runEvent(in, event("2 KB", do("fill", 0, 2000, i+1)), nil); err != nil {
			t.Fatal(err)
		}
	}
	abandon(in)
	d := &damager{fs: disk.OS, dir: dir}
	d.flip(journalNames[0], 4096+2*2048+1000)
	if d.err != nil {
		t.Fatal(d.err)
	}
	return dir
}

// Commits that were not synced are there after a kill. If they cannot be read, they are damaged.
func TestDamageOfUnsyncedCommitsIsFoundAfterAKill(t *testing.T) {
	m := newMachine(t)
	dir := killedAndDamaged(t, m, bootOfWorkload)
	for range 2 { // the first one leaves everything as it is
		if _, err := m.open(dir, disk.OS, false, withBootID(bootOfWorkload)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("open: %v, want ErrCorrupt", err)
		}
	}
	if v, err := verifyOn(disk.OS, bootOfWorkload, dir); err != nil || v.Sound {
		t.Errorf("verify: %+v, %v", v, err)
	}
	r, err := repairOn(disk.OS, bootOfWorkload, dir, false)
	if err != nil || r.Seq != 3 || len(r.Lost) == 0 {
		t.Fatalf("repair: %+v, %v", r, err)
	}
	in, err := m.open(dir, disk.OS, false, withBootID(bootOfWorkload))
	if err != nil || in.Seq() != 3 {
		t.Fatalf("after a repair: %v", err)
	}
	abandon(in)
}

// After a power cut the same is what the cut has left. It stays that when a process dies while it recovers.
func TestUnsyncedCommitsMayBeLostInAPowerCut(t *testing.T) {
	m := newMachine(t)
	dir := killedAndDamaged(t, m, bootOfWorkload)
	if v, err := verifyOn(disk.OS, bootAfterCut, dir); err != nil || !v.Sound || v.Seq != 3 {
		t.Errorf("verify: %+v, %v", v, err)
	}
	for k := 1; ; k++ {
		dir := killedAndDamaged(t, m, bootOfWorkload)
		inj := faultfs.NewInjector(k, faultfs.EIO, true)
		in, err := m.open(dir, faultfs.Wrap(disk.OS, inj.Layer), false, withBootID(bootAfterCut))
		if err == nil {
			abandon(in)
		}
		if in, err = m.open(dir, disk.OS, false, withBootID(bootAfterCut)); err != nil || in.Seq() != 3 {
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
	lock, err := disk.OS.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	note := openNote(lock.OSFile(), bootOfWorkload)
	if note == "" {
		t.Skip("this kernel does not number mounts")
	}
	if err := writeLock(lock.OSFile(), note+"1"); err != nil {
		t.Fatal(err)
	}
	in, err := m.open(dir, disk.OS, false, withBootID(bootOfWorkload))
	if err != nil || in.Seq() != 3 {
		t.Fatalf("open: %v", err)
	}
	abandon(in)
}
