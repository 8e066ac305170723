package tests

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/history"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// Any commit of a history can be opened, and is what it was: over closes, kills and checkpoints.
func TestEachCommitOfAHistory(t *testing.T) {
	commits, looks := 10_000, 300
	if testing.Short() {
		commits, looks = 1500, 40
	}
	const pages = 16
	rt, root := newRuntime(t), t.TempDir()
	dir, wasm := filepath.Join(root, "s"), guests.Load(t, "stores")
	opts := []mmrun.Option{mmrun.WithHistory("all"), mmrun.WithWALSize(mmrun.MinWALSize)}
	in, err := openSeen(rt, dir, wasm, opts...)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed(t), 14))
	states := map[uint64][pages]uint64{in.Seq(): {}}
	var now [pages]uint64
	for i := range commits {
		page := r.Uint64N(pages)
		call(t, in, "one", page*4096, uint64(i+1))
		now[page] = uint64(i + 1)
		states[in.Seq()] = now
		switch r.IntN(commits / 20) {
		case 0:
			abandon(in)
		case 1:
			closeInstance(t, in)
		case 2:
			if err := in.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
			continue
		default:
			continue
		}
		if in, err = openSeen(rt, dir, nil); err != nil { // it remembers that it keeps a history
			t.Fatal(err)
		}
	}
	last := in.Seq()
	look := func(seq uint64, where string) {
		t.Helper()
		to := filepath.Join(root, fmt.Sprint(where, seq))
		if err := archive.ForkAt(ctx, dir, seq, to); err != nil {
			t.Fatalf("commit %d: %v", seq, err)
		}
		f := open(t, rt, to, nil)
		if f.Seq() != seq {
			t.Errorf("commit %d, want %d", f.Seq(), seq)
		}
		for p, want := range states[seq] {
			if got := call64(t, f, "load", uint64(p)*4096); got != want {
				t.Fatalf("commit %d, page %d: %d, want %d", seq, p, got, want)
			}
		}
		closeInstance(t, f)
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	for range looks {
		look(1+r.Uint64N(last), "while it is open ")
	}
	for _, seq := range []uint64{1, 2, last - 1, last} {
		look(seq, "edge ")
	}
	var seen, from uint64
	if err := archive.Log(dir, 5, func(c archive.Commit) error {
		if from == 0 {
			from = c.Seq
		}
		if c.Seq != from+seen || c.Function != "one" && c.Function != "load" || c.Time == nil {
			return fmt.Errorf("%+v", c)
		}
		seen++
		return nil
	}); err != nil || from != 5 || from+seen != last+1 {
		t.Errorf("from %d, %d commits of %d: %v", from, seen, last, err)
	}
	if err := archive.ForkAt(ctx, dir, last+1, filepath.Join(root, "x")); !errors.Is(err,
		archive.ErrMissing) {
		t.Errorf("a commit that was never made: %v", err)
	}
	closeInstance(t, in)
}

// Damage of a history is refused for what it covers, and never touches the state.
func TestDamagedHistory(t *testing.T) {
	rt, root := newRuntime(t), t.TempDir()
	dir := filepath.Join(root, "s")
	in := open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithHistory("all"))
	for i := range uint64(200) {
		call(t, in, "one", 8, i)
		if i%50 == 49 {
			if err := in.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := in.Seq()
	closeInstance(t, in)
	h := filepath.Join(dir, "history")
	files, err := os.ReadDir(h)
	if err != nil {
		t.Fatal(err)
	}
	right, refused := 0, 0
	for _, e := range files {
		path := filepath.Join(h, e.Name())
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		step := max(1, len(good)/60)
		if testing.Short() {
			step = max(1, len(good)/15)
		}
		for at := 0; at < len(good); at += step {
			b := bytes.Clone(good)
			b[at] ^= 4
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, seq := range []uint64{2, 100, last} {
				to := filepath.Join(root, "f")
				err := archive.ForkAt(ctx, dir, seq, to)
				if err != nil {
					if _, there := os.Stat(to); !errors.Is(there, os.ErrNotExist) {
						t.Fatalf("%s, byte %d: %v, and something was made", e.Name(), at, err)
					}
					refused++
					continue
				}
				right++
				f := open(t, rt, to, nil)
				if got := call64(t, f, "load", 8); got != seq-2 {
					t.Fatalf("%s, byte %d, commit %d: %d", e.Name(), at, seq, got)
				}
				closeInstance(t, f)
				if err := os.RemoveAll(to); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if v, err := fsck.Verify(dir); err != nil || !v.Sound {
		t.Error(v, err)
	}
	in = open(t, rt, dir, nil)
	if got := call64(t, in, "load", 8); got != 199 {
		t.Error(got)
	}
	t.Logf("%d right, %d refused", right, refused)
	if right == 0 || refused == 0 {
		t.Error("the damage was not where it was looked for")
	}
}

// A history that cannot be written does not stop the state, and goes on when it is opened again.
func TestHistoryWithoutRoom(t *testing.T) {
	rt, root := newRuntime(t), t.TempDir()
	dir := filepath.Join(root, "s")
	in := open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithHistory("all"))
	first := in.Seq()
	obstacle := filepath.Join(dir, "history", fmt.Sprintf("%020d.log", first+1))
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(n uint64) {
		t.Helper()
		for i := range n {
			call(t, in, "one", 8, i)
		}
		if err := in.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
	}
	write(50)
	closeInstance(t, in)
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	in = open(t, rt, dir, nil)
	again := in.Seq()
	write(50)
	closeInstance(t, in)
	for seq := first; seq <= again+50; seq++ {
		to := filepath.Join(root, fmt.Sprint(seq))
		err := archive.ForkAt(ctx, dir, seq, to)
		if lost := seq > first && seq < again; lost != errors.Is(err, archive.ErrMissing) ||
			!lost && err != nil {
			t.Fatalf("commit %d of %d to %d: %v", seq, first, again+50, err)
		}
	}
}

// The history of a state that stays open gets bases and is pruned, and each commit from the first
// base on is there.
func TestHistoryOfAStateThatStaysOpen(t *testing.T) {
	events, looks := 6000, 60
	if testing.Short() {
		events, looks = 4000, 12
	}
	rt, root := newRuntime(t), t.TempDir()
	dir := filepath.Join(root, "s")
	const most = 512 << 10
	in := open(t, rt, dir, guests.Load(t, "stores"), mmrun.WithHistory(fmt.Sprint(most)),
		mmrun.WithWALSize(mmrun.MinWALSize))
	sums := make(map[uint64][32]byte)
	first := in.Seq() + 1
	var bases []uint64
	for i := 0; i < events || i < 20*events && bases[0] < first; i++ {
		call(t, in, "random", uint64(i), 40)
		sums[in.Seq()] = memorySum(t, in)
		if i%100 == 0 {
			var err error
			if bases, err = history.Bases(dir); err != nil {
				t.Fatal(err)
			}
		}
	}
	last := in.Seq()
	closeInstance(t, in)
	bases, err := history.Bases(dir)
	if err != nil || bases[0] < first {
		t.Fatalf("nothing was taken away: bases %d, %v", bases, err)
	}
	size := int64(0)
	entries, err := os.ReadDir(filepath.Join(dir, "history"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
	}
	if size > 4*most {
		t.Errorf("it has %d bytes, and was to have %d", size, most)
	}
	r := rand.New(rand.NewPCG(seed(t), 16))
	for range looks {
		seq := first + r.Uint64N(last-first+1)
		to := filepath.Join(root, fmt.Sprint(seq))
		err := archive.ForkAt(ctx, dir, seq, to)
		if seq < bases[0] {
			if !errors.Is(err, archive.ErrMissing) {
				t.Fatalf("commit %d, before base %d: %v", seq, bases[0], err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("commit %d, from base %d on: %v", seq, bases[0], err)
		}
		f := open(t, rt, to, nil)
		if got := memorySum(t, f); got != sums[seq] {
			t.Fatalf("commit %d is another one", seq)
		}
		closeInstance(t, f)
		if err := os.RemoveAll(to); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("bases %d of commits %d to %d, %d bytes", bases, first, last, size)
}

func memorySum(t *testing.T, in *mmrun.Instance) (sum [32]byte) {
	t.Helper()
	if err := in.View(ctx, func(tx *mmrun.Tx) error {
		b, _ := tx.Module().Memory().Read(0, tx.Module().Memory().Size())
		sum = sha256.Sum256(b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return sum
}
