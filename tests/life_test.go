package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// A snapshot that is taken while events go on restores to exactly one commit, of an instance with
// either tracker, in either mode.
func TestSnapshotIsOneCommit(t *testing.T) {
	snapshots := 60
	if testing.Short() {
		snapshots = 12
	}
	for _, tracker := range []mmrun.Tracker{mmrun.Kernel, mmrun.Barrier} {
		t.Run(tracker.String(), func(t *testing.T) {
			const pages = 64
			rt, wasm := newRuntime(t), guests.Load(t, "stores")
			root := t.TempDir()
			in, err := openSeen(rt, filepath.Join(root, "s"), wasm, mmrun.WithTracker(tracker),
				mmrun.WithWALSize(mmrun.MinWALSize))
			if err != nil {
				t.Fatal(err)
			}
			call(t, in, "grow", 7)
			// What each commit should be, by its number. Event n writes n to the pages of n.
			write := func(tx *mmrun.Tx) error {
				n := tx.Seq()
				for i := range uint64(5) {
					if _, err := tx.Call(ctx, "one", (n*7+i*13)%pages*4096, n); err != nil {
						return err
					}
				}
				return nil
			}
			var words [pages]uint64
			upTo := uint64(2)
			want := func(seq uint64) *[pages]uint64 {
				for upTo < seq {
					upTo++
					for i := range uint64(5) {
						words[(upTo*7+i*13)%pages] = upTo
					}
				}
				return &words
			}
			stop := make(chan struct{})
			var events sync.WaitGroup
			events.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if err := in.Update(ctx, write); err != nil {
						t.Error(err)
						return
					}
				}
			})
			var last uint64
			for i := range snapshots {
				var file bytes.Buffer
				seq, err := in.Snapshot(ctx, &file)
				if err != nil {
					t.Fatal(err)
				}
				if seq < last {
					t.Fatalf("commit %d after commit %d", seq, last)
				}
				last = seq
				dir := filepath.Join(root, fmt.Sprint("r", i))
				if i%4 == 3 { // and so does a fork
					if seq, err = in.Fork(ctx, dir); err != nil {
						t.Fatal(err)
					}
				} else if got, err := archive.Restore(ctx, &file, dir); err != nil || got != seq {
					t.Fatal(got, err)
				}
				r, err := fsck.Verify(dir)
				if err != nil || !r.Sound || r.Seq != seq {
					t.Fatalf("%+v, %v", r, err)
				}
				restored := open(t, rt, dir, nil)
				for p, word := range want(seq) {
					if got := call64(t, restored, "load", uint64(p)*4096); got != word {
						t.Fatalf("commit %d, page %d: %d, want %d", seq, p, got, word)
					}
				}
			}
			close(stop)
			events.Wait()
			closeInstance(t, in)
		})
	}
}

// call64 is call for a 64-bit result.
func call64(t *testing.T, in *mmrun.Instance, name string, params ...uint64) uint64 {
	t.Helper()
	results, err := in.Call(ctx, name, params...)
	if err != nil {
		t.Fatal(err)
	}
	return results[0]
}

// Whatever a state holds (globals, tables, dropped segments, metadata, receipts) comes back: from
// one that was closed, one that was killed, and one in continuous mode.
func TestSnapshotHasAllOfAState(t *testing.T) {
	for _, how := range []string{"closed", "killed", "continuous"} {
		for _, name := range []string{"counter", "swap", "types", "cmap", "rust_kv", "grow"} {
			t.Run(how+"/"+name, func(t *testing.T) {
				rt := wasiRuntime(t)
				root := t.TempDir()
				dir := filepath.Join(root, "s")
				mode := mmrun.Atomic
				if how == "continuous" {
					mode = mmrun.Continuous
				}
				in, err := openSeen(rt, dir, guests.Load(t, name), mmrun.WithMode(mode))
				if err != nil {
					t.Fatal(err)
				}
				stir(t, in, 40)
				if how == "killed" {
					abandon(in)
				} else {
					closeInstance(t, in)
				}
				var file bytes.Buffer
				m, err := archive.Snapshot(ctx, dir, &file)
				if err != nil {
					t.Fatal(err)
				}
				manifest, err := archive.ReadManifest(bytes.NewReader(file.Bytes()),
					int64(file.Len()))
				if err != nil || manifest.Seq != m.Seq || manifest.Mode != mode.String() {
					t.Fatal(manifest, err)
				}
				restored, forked := filepath.Join(root, "r"), filepath.Join(root, "f")
				if _, err := archive.Restore(ctx, &file, restored); err != nil {
					t.Fatal(err)
				}
				if _, err := archive.Fork(ctx, dir, forked); err != nil {
					t.Fatal(err)
				}
				for _, other := range []string{restored, forked} {
					d, err := archive.Diff(ctx, dir, other, true)
					if err != nil || !d.Same() || d.B.Seq != m.Seq {
						t.Fatalf("%+v, %v", d, err)
					}
					if r, err := fsck.Verify(other); err != nil || !r.Sound {
						t.Fatalf("%+v, %v", r, err)
					}
					again := open(t, rt, other, nil)
					if again.Mode() != mode {
						t.Error(again.Mode())
					}
					stir(t, again, 10)
				}
				// The copies went on, the original did not.
				d, err := archive.Diff(ctx, dir, restored, false)
				if !errors.Is(err, mmrun.ErrLocked) {
					t.Fatal(d, err)
				}
			})
		}
	}
}

// stir makes events of any guest: it calls what it exports with small numbers.
func stir(t *testing.T, in *mmrun.Instance, n int) {
	t.Helper()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(in.Functions())) {
		if !bytes.HasPrefix([]byte(name), []byte("spin")) && name != "recurse" {
			names = append(names, name)
		}
	}
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range n {
		name := names[r.IntN(len(names))]
		err := in.Update(ctx, func(tx *mmrun.Tx) error {
			tx.SetMeta(fmt.Appendf(nil, "event %d", i))
			f := tx.Function(name)
			if f == nil {
				return errEnough
			}
			var stack []uint64
			for range f.Definition().ParamTypes() {
				stack = append(stack, r.Uint64N(4))
			}
			_, err := tx.Call(ctx, name, stack...)
			return err
		})
		_ = err // some trap
	}
}

// A damaged snapshot is refused, whatever of it is damaged, and makes nothing.
func TestDamagedSnapshotIsRefused(t *testing.T) {
	rt, root := newRuntime(t), t.TempDir()
	in := open(t, rt, filepath.Join(root, "s"), guests.Load(t, "stores"))
	for p := range uint64(10) {
		call(t, in, "one", p*4096, p+1)
	}
	var file bytes.Buffer
	if _, err := in.Snapshot(ctx, &file); err != nil {
		t.Fatal(err)
	}
	good := file.Bytes()
	to := filepath.Join(root, "r")
	refused := func(b []byte, what string) {
		t.Helper()
		_, err := archive.Restore(ctx, bytes.NewReader(b), to)
		if !errors.Is(err, archive.ErrMalformed) && !errors.Is(err, archive.ErrVersion) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: something was made: %v", what, err)
		}
	}
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		refused(b, fmt.Sprint("bit flipped at ", i))
	}
	for n := 0; n < len(good); n += 1 + n/50 {
		refused(good[:n], fmt.Sprint("cut to ", n))
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := archive.Restore(ended, bytes.NewReader(good), to); !errors.Is(err,
		context.Canceled) {
		t.Error(err)
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Error("something was made")
	}
	if _, err := archive.Restore(ctx, bytes.NewReader(good), to); err != nil {
		t.Error(err)
	}
	if _, err := archive.Restore(ctx, bytes.NewReader(good), to); !errors.Is(err, os.ErrExist) {
		t.Errorf("over a state that is there: %v", err)
	}
	// A writer that fails fails the snapshot, not the instance.
	if _, err := in.Snapshot(ctx, &failingWriter{n: 100}); !errors.Is(err, io.ErrShortWrite) {
		t.Error(err)
	}
	call(t, in, "one", 0, 5)
}

type failingWriter struct{ n int }

func (w *failingWriter) Write(b []byte) (int, error) {
	if w.n -= len(b); w.n < 0 {
		return 0, io.ErrShortWrite
	}
	return len(b), nil
}

// A guest that wants to know is told once that its state goes on elsewhere, with a number of its
// own.
func TestForkIsToldItsGeneration(t *testing.T) {
	rt := newRuntime(t)
	if _, err := mmrun.InstantiateHost(ctx, rt); err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	dir := func(name string) string { return filepath.Join(root, name) }
	in := open(t, rt, dir("s"), guests.Load(t, "generation"))
	if call64(t, in, "generation") != 0 || call64(t, in, "told") != 0 {
		t.Error("a state that was never forked")
	}
	seen := map[uint64]bool{0: true}
	for i, name := range []string{"f1", "f2", "f3"} {
		if i < 2 {
			if _, err := in.Fork(ctx, dir(name)); err != nil {
				t.Fatal(err)
			}
		} else if _, err := archive.Fork(ctx, dir("f1"), dir(name)); err != nil {
			t.Fatal(err)
		}
		for round := range 2 {
			f, err := mmrun.Open(ctx, rt, dir(name), nil)
			if err != nil {
				t.Fatal(err)
			}
			g := call64(t, f, "generation")
			if round == 0 && (seen[g] || int64(g) < 0) {
				t.Errorf("%s: generation %d, seen %v", name, g, seen)
			}
			seen[g] = true
			times := []uint64{1, 1, 2}[i] // f3 has been told of both forks
			if call64(t, f, "told") != times || call64(t, f, "last") != g ||
				call64(t, f, "reason") != 1 {
				t.Errorf("%s: told %d times, last %d", name, call64(t, f, "told"),
					call64(t, f, "last"))
			}
			closeInstance(t, f)
		}
	}
	// One that fails when it is told is not opened, and nothing is changed.
	call(t, in, "fail", 1)
	if _, err := in.Fork(ctx, dir("f4")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := mmrun.Open(ctx, rt, dir("f4"), nil); !errors.Is(err, mmrun.ErrTrap) {
			t.Error(err)
		}
	}
	if d, err := archive.Diff(ctx, dir("f4"), dir("f1"), false); err != nil || d.A.Seq != in.Seq() {
		t.Error(d, err)
	}
}
