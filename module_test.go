package mmrun_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// A module that has been closed opens nothing more; its instances go on, and the code goes with the
// last of them.
func TestClosedModuleOpensNothing(t *testing.T) {
	module, err := mmrun.Compile(ctx, newRuntime(t), guests.Load(t, "counter"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := module.Open(ctx, filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := module.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got := call(t, in, "inc"); got != 1 {
		t.Errorf("inc gave %d", got)
	}
	closeInstance(t, in)
	_, err = module.Open(ctx, filepath.Join(t.TempDir(), "s"))
	if err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("%v, want an error that says that it is closed", err)
	}
}

// Typed calls give and take Go's numbers, and are checked against the module's signatures when they
// are made.
func TestTypedCalls(t *testing.T) {
	module, err := mmrun.Compile(ctx, newRuntime(t), guests.Load(t, "types"))
	if err != nil {
		t.Fatal(err)
	}
	in, err := module.Open(ctx, filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer closeInstance(t, in)
	none := mmrun.None{}

	size, err := mmrun.Func0[int32](module, "size")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := size.Call(ctx, in, none, none, none); err != nil || got != 16 {
		t.Errorf("size: %d, %v", got, err)
	}
	f64, err := mmrun.Func1[float64, float64](module, "f64")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f64.Call(ctx, in, -1.5, none, none); err != nil || got != -1.5 {
		t.Errorf("f64: %v, %v", got, err)
	}
	add, err := mmrun.Func2[int32, int32, int32](module, "add")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := add.Call(ctx, in, 40, -50, none); err != nil || got != -10 {
		t.Errorf("add: %d, %v", got, err)
	}
	err = in.Update(ctx, func(tx *mmrun.Tx) error {
		got, err := add.In(ctx, tx, 1, 2, none)
		if got != 3 {
			t.Errorf("add in an event: %d", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	store, err := mmrun.Func2[mmrun.None, uint32, int64](module, "store")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Call(ctx, in, 1<<31, 7, none); err == nil {
		t.Error("a store behind the memory is no error")
	}

	for what, err := range map[string]error{
		"another result":     errorOf(mmrun.Func0[int64](module, "size")),
		"another parameter":  errorOf(mmrun.Func1[float64, float32](module, "f64")),
		"too few parameters": errorOf(mmrun.Func1[int32, int32](module, "add")),
		"too many":           errorOf(mmrun.Func3[int32, int32, int32, int32](module, "add")),
		"no such function":   errorOf(mmrun.Func0[int32](module, "nothing")),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func errorOf[T any](_ T, err error) error { return err }

// Trackers have names; one that there is not is refused.
func TestTrackersByName(t *testing.T) {
	for _, want := range []mmrun.Tracker{mmrun.Auto, mmrun.Kernel, mmrun.Barrier} {
		if got, err := mmrun.ParseTracker(want.String()); err != nil || got != want {
			t.Errorf("%v: %v, %v", want, got, err)
		}
	}
	if _, err := mmrun.ParseTracker("magic"); err == nil {
		t.Error("a tracker of another name is accepted")
	}
	_, err := mmrun.Open(ctx, newRuntime(t), t.TempDir(), guests.Load(t, "counter"),
		mmrun.WithTracker(mmrun.Tracker(9)))
	if err == nil || !strings.Contains(err.Error(), "tracker") {
		t.Errorf("WithTracker(9): %v", err)
	}
}
