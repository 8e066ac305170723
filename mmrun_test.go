package mmrun_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/instance"
)

var (
	ctx   = context.Background()
	modes = []mmrun.Mode{mmrun.Atomic, mmrun.Continuous}

	newRuntime, open    = instance.Runtime, instance.Open
	call, closeInstance = instance.Call, instance.Close
)

func TestStateSurvivesCloseAndOpen(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "counter.state")
			wasm := guests.Load(t, "counter")
			for want := uint64(1); want <= 5; want++ {
				in := open(t, newRuntime(t), dir, wasm, mmrun.WithMode(mode))
				if got := call(t, in, "inc"); got != want {
					t.Fatalf("inc gave %d, want %d", got, want)
				}
				if got, want := in.Seq(), want+1; got != want {
					t.Errorf("seq is %d, want %d", got, want)
				}
				closeInstance(t, in)
			}
		})
	}
}

func TestMemoryAndGlobalsSurvive(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "s")
			in := open(t, newRuntime(t), dir, guests.Load(t, "stores"), mmrun.WithMode(mode))
			call(t, in, "grow", 40)
			for i := range uint64(500) {
				call(t, in, "one", i*4096+8, i*i)
			}
			closeInstance(t, in)
			in = open(t, newRuntime(t), dir, nil)
			if in.Mode() != mode {
				t.Fatalf("mode is %v, want %v", in.Mode(), mode)
			}
			for i := range uint64(500) {
				if got := call(t, in, "load", i*4096+8); got != i*i {
					t.Fatalf("page %d holds %d, want %d", i, got, i*i)
				}
			}
			if got := call(t, in, "count"); got != 500 {
				t.Errorf("count is %d, want 500", got)
			}
		})
	}
}

func TestDataSegmentsAndStartFunctionRunOnce(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "s")
			in := open(t, newRuntime(t), dir, guests.Load(t, "start"), mmrun.WithMode(mode))
			before := call(t, in, "read", 0)
			call(t, in, "write", 0, before^0xff)
			for range 3 {
				closeInstance(t, in)
				in = open(t, newRuntime(t), dir, nil)
				if got := call(t, in, "read", 0); got != before^0xff {
					t.Errorf("a data segment was written again: %#x, want %#x", got, before^0xff)
				}
				if g, m := call(t, in, "starts_global"), call(t, in, "starts_memory"); g != 1 ||
					m != 1 {
					t.Errorf("the start function ran %d times by the global, %d by the memory; "+
						"want once", g, m)
				}
			}
		})
	}
}

func TestFailedEventIsRolledBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	in := open(t, newRuntime(t), dir, guests.Load(t, "types"))
	call(t, in, "store", 8, 42)
	seq := in.Seq()
	for _, name := range []string{"trap_after", "trap_after_grow"} {
		if _, err := in.Call(ctx, name, 5); err == nil {
			t.Fatalf("%s did not trap", name)
		}
		if got := call(t, in, "load", 8); got != 42 {
			t.Errorf("after %s memory holds %d, want 42", name, got)
		}
		if got := call(t, in, "size"); got != 16 {
			t.Errorf("after %s memory has %d wasm pages, want 16", name, got)
		}
	}
	if got := in.Seq(); got != seq+4 {
		t.Errorf("seq is %d, want %d", got, seq+4)
	}
}
