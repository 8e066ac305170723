package tests

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// damagedCopy makes a state with commits in its wal, copies it while it is open, as a kill
// would leave it, and lets damage change the copy.
func damagedCopy(t *testing.T, commits uint64, damage func(dir string)) string {
	t.Helper()
	in := open(t, newRuntime(t), filepath.Join(t.TempDir(), "s"), guests.Load(t, "stores"),
		mmrun.WithWALSize(mmrun.MinWALSize), mmrun.WithSync(mmrun.SyncAlways))
	call(t, in, "grow", 3)
	for i := range commits {
		call(t, in, "one", i*4096, i+1)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("cp", "-r", "--sparse=always", in.Dir(),
		dir).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v: %s", err, out)
	}
	damage(dir)
	return dir
}

// flip inverts one bit of a file.
func flip(t *testing.T, path string, offset int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, offset); err != nil {
		t.Fatal(err)
	}
}

func TestRepairGoesBackToTheLastIntactCommit(t *testing.T) {
	const record = 4096 + 2000 // inside one of the records
	dir := damagedCopy(t, 40, func(dir string) { flip(t, filepath.Join(dir, "wal.0"), record) })

	if _, err := mmrun.Open(ctx, newRuntime(t), dir, nil); !errors.Is(err, mmrun.ErrCorrupt) {
		t.Fatalf("open gave %v, want ErrCorrupt", err)
	}
	report, err := fsck.Repair(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Problems) == 0 || len(report.Lost) == 0 || report.Backup == "" {
		t.Errorf("the report does not say what was wrong and lost: %+v", report)
	}
	in := open(t, newRuntime(t), dir, nil)
	if in.Seq() != report.Seq || in.Seq() < 3 || in.Seq() > 41 {
		t.Fatalf("the state is at commit %d, the report says %d, 42 had been made", in.Seq(),
			report.Seq)
	}
	// Commit 1 is the first run, 2 the growth, 3+i the store of i+1 in page i.
	for i := range uint64(40) {
		want := uint64(0)
		if 3+i <= report.Seq {
			want = i + 1
		}
		if got := call(t, in, "load", i*4096); got != want {
			t.Errorf("commit %d: page %d holds %d, want %d", report.Seq, i, got, want)
		}
	}
	if got, want := call(t, in, "count"), report.Seq-2; got != want {
		t.Errorf("the global says %d events, want %d", got, want)
	}
	closeInstance(t, in)
	if v, err := fsck.Verify(dir); err != nil || !v.Sound {
		t.Errorf("the repaired state is not sound: %+v, %v", v, err)
	}
	if v, err := fsck.Verify(report.Backup); err != nil || v.Sound {
		t.Errorf("the files kept are not the damaged ones: %+v, %v", v, err)
	}
}

func TestRepairLeavesASoundStateAlone(t *testing.T) {
	dir := damagedCopy(t, 5, func(string) {})
	report, err := fsck.Repair(dir, false)
	if err != nil || len(report.Problems) > 0 || report.Backup != "" {
		t.Fatalf("%+v, %v", report, err)
	}
}

func TestRepairOfADamagedPageNeedsForce(t *testing.T) {
	dir := damagedCopy(t, 40, func(string) {})
	in := open(t, newRuntime(t), dir, nil)
	closeInstance(t, in)
	flip(t, filepath.Join(dir, "memory"), 7*4096+100)

	before, err := os.ReadFile(filepath.Join(dir, "memory"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fsck.Repair(dir, false); !errors.Is(err, mmrun.ErrCorrupt) {
		t.Fatalf("repair gave %v, want ErrCorrupt", err)
	}
	if after, _ := os.ReadFile(filepath.Join(dir, "memory")); !bytes.Equal(before, after) {
		t.Error("a repair that was refused has changed the state")
	}
	report, err := fsck.Repair(dir, true)
	if err != nil || len(report.Lost) != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if v, err := fsck.Verify(dir); err != nil || !v.Sound {
		t.Errorf("the repaired state is not sound: %+v, %v", v, err)
	}
}
