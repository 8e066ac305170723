package tests

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// Each way of an upgrade brings the data over, keeps the old state, and can be undone.
func TestUpgrade(t *testing.T) {
	for _, way := range []string{"export", "migrate"} {
		t.Run(way, func(t *testing.T) {
			rt, dir := wasiRuntime(t), filepath.Join(t.TempDir(), "s")
			handler := mmrun.WithHandler(nil)
			in := open(t, rt, dir, guests.Load(t, "notes1"), handler)
			for i := range 40 {
				if _, err := in.Handle(ctx, fmt.Appendf(nil, "note %d", i)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := in.Once(ctx, mmrun.Request{Key: "k"}, func(tx *mmrun.Tx) ([]byte, error) {
				tx.SetMeta([]byte("mine"))
				return tx.Handle(ctx, []byte("once"))
			}); err != nil {
				t.Fatal(err)
			}
			seq := in.Seq()
			closeInstance(t, in)
			o := mmrun.UpgradeOptions{DryRun: true}
			if way == "migrate" {
				o.Migrate = func(old, new *mmrun.Tx) error {
					n, err := old.Call(ctx, "count")
					if err != nil {
						return err
					}
					for range n[0] {
						if _, err := new.Handle(ctx, []byte("migrated")); err != nil {
							return err
						}
					}
					return nil
				}
			}
			wasm := guests.Load(t, "notes2")
			r, err := mmrun.Upgrade(ctx, rt, dir, wasm, o)
			if err != nil || r.Seq != seq+1 || r.Way != way || r.Previous != "" {
				t.Fatalf("%+v, %v", r, err)
			}
			o.DryRun = false
			if r, err = mmrun.Upgrade(ctx, rt, dir, wasm, o); err != nil || r.Seq != seq+1 {
				t.Fatalf("%+v, %v", r, err)
			}
			if v, err := fsck.Verify(dir); err != nil || !v.Sound {
				t.Fatal(v, err)
			}
			in = open(t, rt, dir, wasm, handler)
			if in.Seq() != seq+1 || string(in.Meta()) != "mine" || call(t, in, "count") != 41 {
				t.Errorf("commit %d, meta %q", in.Seq(), in.Meta())
			}
			out, err := in.Once(ctx, mmrun.Request{Key: "k"}, nil)
			if err != nil || !out.Repeated {
				t.Errorf("the receipts are gone: %+v, %v", out, err)
			}
			if effect, err := in.Handle(ctx, []byte("new")); err != nil ||
				string(effect) != "42: new (1.5)\n" {
				t.Errorf("%q, %v", effect, err)
			}
			closeInstance(t, in)
			if _, err := mmrun.UndoUpgrade(dir, false); err == nil || !strings.Contains(err.Error(),
				"2 commits were made since") {
				t.Errorf("undone over commits: %v", err)
			}
			if back, err := mmrun.UndoUpgrade(dir, true); err != nil || back != seq {
				t.Fatal(back, err)
			}
			in = open(t, rt, dir, guests.Load(t, "notes1"), handler)
			if in.Seq() != seq || call(t, in, "count") != 41 {
				t.Error("the old state is not what it was")
			}
			closeInstance(t, in)
			if _, err := mmrun.UndoUpgrade(dir, true); !errors.Is(err, mmrun.ErrNotExist) {
				t.Error(err)
			}
			if _, err := mmrun.Upgrade(ctx, rt, dir, wasm, o); err != nil {
				t.Fatal(err)
			}
			if _, err := mmrun.Upgrade(ctx, rt, dir, guests.Load(t, "notes1"), o); err == nil {
				t.Error("an upgrade over what an earlier one has kept")
			}
			if err := mmrun.PruneUpgrade(dir); err != nil {
				t.Fatal(err)
			}
			names, err := os.ReadDir(filepath.Dir(dir))
			if err != nil || len(names) != 1 {
				t.Errorf("%v, %v", names, err)
			}
		})
	}
}

// Kept memory: globals carry over by name, what is new begins as it is written, and what has no
// place is refused unless it is named.
func TestUpgradeKeepingMemory(t *testing.T) {
	rt, dir := newRuntime(t), filepath.Join(t.TempDir(), "s")
	in := open(t, rt, dir, guests.Load(t, "counter"))
	for range 7 {
		call(t, in, "inc")
	}
	closeInstance(t, in)
	keep := mmrun.UpgradeOptions{KeepMemory: true}
	if _, err := mmrun.Upgrade(ctx, rt, dir, guests.Load(t, "counter2"), keep); err != nil {
		t.Fatal(err)
	}
	in = open(t, rt, dir, nil)
	if call(t, in, "leap") != 12 || call(t, in, "load", 16) != 0 {
		t.Error("not what was kept")
	}
	closeInstance(t, in)
	if err := mmrun.PruneUpgrade(dir); err != nil {
		t.Fatal(err)
	}
	// Back: the memory and a global have no place.
	r, err := mmrun.Upgrade(ctx, rt, dir, guests.Load(t, "counter"), keep)
	if !errors.Is(err, mmrun.ErrMismatch) || len(r.Mismatches) != 2 {
		t.Fatalf("%+v, %v", r, err)
	}
	for _, m := range r.Mismatches {
		if !strings.Contains(err.Error(), m.Name+": "+m.Why) {
			t.Errorf("%v does not name %s", err, m.Name)
		}
		keep.Allow = append(keep.Allow, m.Name)
	}
	if _, err := mmrun.Upgrade(ctx, rt, dir, guests.Load(t, "counter"), keep); err != nil {
		t.Fatal(err)
	}
	in = open(t, rt, dir, nil)
	if call(t, in, "get") != 12 {
		t.Error("the global is lost")
	}
	closeInstance(t, in)
	if err := mmrun.PruneUpgrade(dir); err != nil {
		t.Fatal(err)
	}
	keep.Data = true
	if _, err := mmrun.Upgrade(ctx, rt, dir, guests.Load(t, "counter2"), keep); err != nil {
		t.Fatal(err)
	}
	in = open(t, rt, dir, nil)
	if call(t, in, "load", 16) != 'n' || call(t, in, "get") != 12 {
		t.Error("the new data are not there")
	}
	closeInstance(t, in)
	// What cannot be is refused, and leaves all as it was.
	for _, c := range []struct {
		o    mmrun.UpgradeOptions
		wasm []byte
		want string
	}{
		{mmrun.UpgradeOptions{}, guests.Load(t, "types"), "mmrun_save"},
		{keep, guests.Load(t, "counter2"), "it has this module already"},
		{keep, []byte("nonsense"), "not a wasm module"},
	} {
		if err := mmrun.PruneUpgrade(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := mmrun.Upgrade(ctx, rt, dir, c.wasm, c.o); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q", err, c.want)
		}
		names, err := os.ReadDir(filepath.Dir(dir))
		if err != nil || len(names) != 1 {
			t.Errorf("%v, %v", names, err)
		}
	}
}

// An undo that was killed between its two steps is ended by the next one, whatever was committed
// meanwhile, also where two modules have followed each other before.
func TestUndoneTwice(t *testing.T) {
	for _, before := range []int{0, 1, 2} { // upgrades before, there and back
		for _, commits := range []int{0, 5} {
			rt, dir := newRuntime(t), filepath.Join(t.TempDir(), "s")
			in := open(t, rt, dir, guests.Load(t, "counter"))
			call(t, in, "inc")
			closeInstance(t, in)
			wasm := guests.Load(t, "counter")
			builds := [][]byte{wasm, append(bytes.Clone(wasm), 0, 5, 4, 'n', 'e', 'x', 't')}
			up := func(n int) {
				t.Helper()
				o := mmrun.UpgradeOptions{KeepMemory: true}
				if _, err := mmrun.Upgrade(ctx, rt, dir, builds[n%2], o); err != nil {
					t.Fatal(err)
				}
			}
			for n := range before {
				up(n + 1)
				if err := mmrun.PruneUpgrade(dir); err != nil {
					t.Fatal(err)
				}
			}
			old, err := mmrun.StateModule(dir)
			if err != nil {
				t.Fatal(err)
			}
			up(before + 1)
			// The first step of an undo.
			for _, r := range [][2]string{{dir, dir + ".x"}, {dir + ".previous", dir},
				{dir + ".x", dir + ".previous"}} {
				if err := os.Rename(r[0], r[1]); err != nil {
					t.Fatal(err)
				}
			}
			in = open(t, rt, dir, nil)
			for range commits {
				call(t, in, "inc")
			}
			seq := in.Seq()
			closeInstance(t, in)
			got, err := mmrun.UndoUpgrade(dir, false)
			if err != nil || got != seq {
				t.Fatalf("%d before, %d commits: at %d, want %d, %v", before, commits, got, seq,
					err)
			}
			if is, err := mmrun.StateModule(dir); err != nil || is != old {
				t.Fatalf("%d before, %d commits: the new module is back: %v", before, commits, err)
			}
			if _, err := os.Stat(dir + ".previous"); !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	}
}
