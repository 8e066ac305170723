package tests

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// A directory that was put together from two copies of a state is found to be that, by Open or at
// least by verify, or it is one of the states that have been. The copies are of two lives that went
// on from one backup, taken between events, while the state was open and when it was closed.
func TestMixOfTwoBackupsIsFound(t *testing.T) {
	rt := newRuntime(t)
	root := scratch.Dir(t)
	module, err := mmrun.Compile(ctx, rt, guests.Load(t, "stores"))
	if err != nil {
		t.Fatal(err)
	}
	openIn := func(dir string) *mmrun.Instance {
		t.Helper()
		in, err := module.Open(ctx, dir, mmrun.WithWALSize(mmrun.MinWALSize))
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	var copies []snapshot
	truth := map[string]bool{}
	// take copies the files of an open state, whose content is known.
	take := func(in *mmrun.Instance, dir string) {
		t.Helper()
		truth[content(t, in)] = true
		s := readSnapshot(t, dir)
		delete(s, "lock") // a copy's own
		copies = append(copies, s)
	}
	live := func(dir string, salt uint64) {
		t.Helper()
		in := openIn(dir)
		for i := range uint64(4) {
			call(t, in, "one", (salt*7+i)%16*4096+8*i, salt<<32|i+1)
			truth[content(t, in)] = true
			take(in, dir)
			if i == 1 {
				if err := in.Checkpoint(ctx); err != nil {
					t.Fatal(err)
				}
				take(in, dir)
			}
		}
		take(in, dir)
		closeInstance(t, in)
		in = openIn(dir)
		take(in, dir)
		closeInstance(t, in)
	}
	first := filepath.Join(root, "first")
	in := openIn(first)
	call(t, in, "one", 8, 1)
	truth[content(t, in)] = true
	closeInstance(t, in)
	backup := readSnapshot(t, first)
	live(first, 1)
	second := filepath.Join(root, "second")
	backup.write(t, second)
	live(second, 2)

	refused, byVerify, sound := 0, 0, 0
	names := []string{"globals", "memory", "memory.sums", "wal.0", "wal.1"}
	dir := filepath.Join(root, "mix")
	for a := range copies {
		for b := range copies {
			for which := 1; a != b && which < 1<<len(names)-1; which++ {
				if testing.Short() && (a+b+which)%7 != 0 {
					continue
				}
				mix := maps.Clone(copies[a])
				for i, name := range names {
					if which>>i&1 != 0 {
						mix[name] = copies[b][name]
					}
				}
				mix.write(t, dir)
				report, err := fsck.Verify(dir)
				if err != nil {
					t.Fatal(err)
				}
				in, err := module.Open(ctx, dir)
				if err != nil {
					refused++
					if report.Sound {
						t.Errorf("copy %d with %05b of %d: sound, and refused: %v", a, which, b,
							err)
					}
					continue
				}
				got := content(t, in)
				closeInstance(t, in)
				switch {
				case truth[got]:
					sound++
				case report.Sound:
					t.Errorf("copy %d with %v of %d is taken for a state: %s", a,
						namesOf(names, which), b, got)
				default:
					byVerify++
				}
			}
		}
	}
	t.Logf("%d mixes refused, %d found by verify alone, %d were states", refused, byVerify, sound)
	if refused == 0 {
		t.Error("nothing was refused")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func namesOf(names []string, which int) string {
	var chosen []string
	for i, name := range names {
		if which>>i&1 != 0 {
			chosen = append(chosen, name)
		}
	}
	slices.Sort(chosen)
	return fmt.Sprint(chosen)
}
