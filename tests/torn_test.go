package tests

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// With SyncAlways a continuous state is trusted after a power cut between any two events, also when
// the last one has trapped.
func TestFailedContinuousEventIsSyncedToo(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(t.TempDir(), "s")
	in, err := m.open(dir, vfs.OS, true, mmrun.WithMode(mmrun.Continuous),
		mmrun.WithSync(mmrun.SyncAlways), withBootID(bootOfWorkload))
	if err != nil {
		t.Fatal(err)
	}
	if err := runEvent(in, event("half", do("one", 8, 1), outside).thatTraps(), nil); err != nil {
		t.Fatal(err)
	}
	abandon(in)
	if in, err = m.open(dir, vfs.OS, false, withBootID(bootAfterCut)); err != nil {
		t.Fatal(err)
	}
	abandon(in)
}

// A power cut may keep the globals that an event which grew the memory has left, and lose the
// memory file's new length.
func TestTornStateWithALostGrowthCanBeAccepted(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(t.TempDir(), "s")
	in, err := m.open(dir, vfs.OS, true, mmrun.WithMode(mmrun.Continuous),
		withBootID(bootOfWorkload))
	if err != nil {
		t.Fatal(err)
	}
	if err := runEvent(in, event("growth", do("grow", 2), do("one", 140000, 1)), nil); err != nil {
		t.Fatal(err)
	}
	abandon(in)
	if err := os.Truncate(filepath.Join(dir, statedir.MemoryName), 65536); err != nil {
		t.Fatal(err)
	}
	if _, err = m.open(dir, vfs.OS, false, withBootID(bootAfterCut)); !errors.Is(err,
		mmrun.ErrTorn) {
		t.Fatalf("%v, want ErrTorn", err)
	}
	in, err = m.open(dir, vfs.OS, false, withBootID(bootAfterCut), mmrun.WithAcceptTorn())
	if err != nil {
		t.Fatal(err)
	}
	defer abandon(in)
	if got := len(storeOf(in).Memory().Bytes()); got != 3*65536 {
		t.Errorf("the memory has %d bytes, want %d", got, 3*65536)
	}
}

// What a power cut did to both slots of a continuous state is for Verify to report, not an error of
// it.
func TestVerifyReportsAStateWithoutGlobals(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(t.TempDir(), "s")
	in, err := m.open(dir, vfs.OS, true, mmrun.WithMode(mmrun.Continuous),
		withBootID(bootOfWorkload))
	if err != nil {
		t.Fatal(err)
	}
	if err := runEvent(in, event("one store", do("one", 8, 1)), nil); err != nil {
		t.Fatal(err)
	}
	abandon(in)
	globals, err := os.OpenFile(filepath.Join(dir, statedir.GlobalsName), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer globals.Close()
	if _, err := globals.WriteAt(make([]byte, 2*4096), 2*4096); err != nil { // both slots
		t.Fatal(err)
	}
	if _, err := m.open(dir, vfs.OS, false, withBootID(bootAfterCut)); !errors.Is(err,
		mmrun.ErrTorn) {
		t.Errorf("open: %v, want ErrTorn", err)
	}
	report, err := fsck.Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.Sound {
		t.Error("the state is called sound")
	}
}
