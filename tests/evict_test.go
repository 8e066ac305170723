package tests

import (
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// A page that has rested long enough to be evicted may be written by the very event whose commit
// evicts. What it wrote must not be lost.
func TestEvictionKeepsWhatTheEventHasWritten(t *testing.T) {
	const resting, busy = 2 * 4096, 4 * 4096
	in := open(t, newRuntime(t), filepath.Join(t.TempDir(), "s"), guests.Load(t, "stores"))
	call(t, in, "one", resting, 1)
	for round := range uint64(10) {
		for i := range uint64(100) {
			call(t, in, "one", busy, i)
		}
		if err := in.Checkpoint(bg); err != nil { // the next commit finds it finished, and evicts
			t.Fatal(err)
		}
		call(t, in, "one", resting, round)
		if got := call(t, in, "load", resting); got != round {
			t.Fatalf("round %d: the page holds %d, the event wrote %d", round, got, round)
		}
	}
}
