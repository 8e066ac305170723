package tests

import (
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// Events that dirty pages faster than checkpoints can follow have to wait: the memory that mmrun
// takes beside the guest's is bounded. No event here makes more than 8192 pages private.
func TestPrivatePagesAreBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("dirties 600 MiB")
	}
	const pages, perEvent, bound = 150_000, 6_000, 131_072 + 8_192
	in := open(t, newRuntime(t), filepath.Join(scratch.Dir(t), "s"), guests.Load(t, "stores"))
	call(t, in, "grow", pages/16)
	most := 0
	for first := uint64(0); first+perEvent <= pages; first += perEvent {
		call(t, in, "touch", first, 1, perEvent, first+1)
		most = max(most, in.Stats().PrivatePages)
	}
	if most > bound {
		t.Errorf("%d pages had shadows, the bound is %d", most, bound)
	}
	for first := uint64(0); first+perEvent <= pages; first += perEvent {
		if got, want := call(t, in, "load", (first+perEvent-1)*4096), first+1; got != want {
			t.Fatalf("page %d holds %d, want %d", first+perEvent-1, got, want)
		}
	}
	t.Logf("at most %d pages had shadows; %+v", most, in.Stats())
}
