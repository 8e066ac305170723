//go:build linux

package mmrun_test

import (
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/guests"
)

// On tmpfs an access to a hole of a mapped file takes a block: on a full disk it would be a SIGBUS in
// the guest's code. So memory has its blocks there, in Atomic mode too, and a growth without room is
// refused.
func TestDiskFullKillsNoProcessOnTmpfs(t *testing.T) {
	d := newSmallDisk(t, 4<<20)
	in := open(t, newRuntime(t), d.state(), guests.Load(t, "stores"), mmrun.WithJournalSize(mmrun.MinJournalSize))
	if got := call(t, in, "grow", 40); got != 1 {
		t.Fatalf("grow gave %d, want the old size 1", got)
	}
	d.fill()
	call(t, in, "one", 2_000_000, 7)
	if got := call(t, in, "load", 2_000_000); got != 7 {
		t.Errorf("loaded %d, want 7", got)
	}
	if got := call(t, in, "load", 1_000_000); got != 0 {
		t.Errorf("loaded %d, want 0", got)
	}
	if got := call(t, in, "grow", 100); got != 1<<32-1 {
		t.Errorf("grow on a full disk gave %d, want -1", int32(got))
	}
	d.makeRoom()
}
