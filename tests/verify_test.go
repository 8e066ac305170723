package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// files is the content of a state directory without its lock.
type files map[string][]byte

func readFiles(t testing.TB, dir string) files {
	t.Helper()
	all := files{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if all[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// write makes a state directory of the files.
func (f files) write(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "s")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, content := range f {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (f files) equal(other files) bool {
	if len(f) != len(other) {
		return false
	}
	for name, content := range f {
		if got, ok := other[name]; !ok || !bytes.Equal(got, content) {
			return false
		}
	}
	return true
}

func (f files) clone() files {
	c := files{}
	for name, content := range f {
		c[name] = bytes.Clone(content)
	}
	return c
}

// verifySamples are states of a guest with memory and globals: one that was closed, one that was
// copied while its wal held commits, and a continuous one.
func verifySamples(t *testing.T) map[string]files {
	samples := map[string]files{}
	wasm := guests.Load(t, "types")
	for _, name := range []string{"closed", "wal", "continuous"} {
		opts := []mmrun.Option{mmrun.WithWALSize(mmrun.MinWALSize)}
		if name == "continuous" {
			opts = append(opts, mmrun.WithMode(mmrun.Continuous))
		}
		dir := filepath.Join(t.TempDir(), "s")
		in := open(t, newRuntime(t), dir, wasm, opts...)
		call(t, in, "modify", 20)
		closeInstance(t, in)
		in = open(t, newRuntime(t), dir, wasm, opts...)
		call(t, in, "grow", 2)
		call(t, in, "store", 17*65536, 99)
		call(t, in, "modify", 3)
		if name == "wal" {
			samples[name] = readFiles(t, dir)
		}
		closeInstance(t, in)
		if name != "wal" {
			samples[name] = readFiles(t, dir)
		}
	}
	return samples
}

func TestVerifyFindsSoundStatesSoundAndChangesNothing(t *testing.T) {
	for name, sample := range verifySamples(t) {
		t.Run(name, func(t *testing.T) {
			dir := sample.write(t)
			r, err := fsck.Verify(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !r.Sound || r.Seq != 5 {
				t.Errorf("sound %v, seq %d: %+v", r.Sound, r.Seq, r.Checks)
			}
			if _, err := fsck.Inspect(dir); err != nil {
				t.Error(err)
			}
			if !sample.equal(readFiles(t, dir)) {
				t.Error("the files have changed")
			}
			if _, err := os.Stat(filepath.Join(dir, "lock")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a lock file has been made: %v", err)
			}
		})
	}
}

// answers is what a state holds, by way of opening it.
func answers(t *testing.T, dir string) (string, error) {
	ctx := context.Background()
	rt := newRuntime(t)
	defer rt.Close(ctx)
	in, err := mmrun.Open(ctx, rt, dir, nil)
	if err != nil {
		return "", err
	}
	defer in.Close(ctx)
	text := fmt.Sprint("seq ", in.Seq())
	err = in.Update(ctx, func(tx *mmrun.Tx) error {
		globals, err := tx.Call(ctx, "get_globals")
		if err != nil {
			return err
		}
		// The upper halves of the 32-bit values mean nothing.
		text += fmt.Sprint(uint32(globals[0]), globals[1], uint32(globals[2]), globals[3],
			tx.Memory().Size())
		image, _ := tx.Memory().Read(0, tx.Memory().Size())
		text += string(image)
		return nil
	})
	return text, err
}

// Whatever bit is flipped and wherever a file is cut: Verify finds it, or the state opens and gives
// the right answers (of a continuous state, whose memory has no checksums, only that it opens). And
// what Verify calls sound opens.
func TestVerifyOrOpenFindsDamage(t *testing.T) {
	rounds := 80
	if testing.Short() {
		rounds = 20
	}
	for name, sample := range verifySamples(t) {
		t.Run(name, func(t *testing.T) {
			want, err := answers(t, sample.write(t))
			if err != nil {
				t.Fatal(err)
			}
			names := slices.Sorted(func(yield func(string) bool) {
				for n := range sample {
					if !yield(n) {
						return
					}
				}
			})
			random := rand.New(rand.NewPCG(1, 2))
			found, harmless := 0, 0
			for range rounds {
				damaged := sample.clone()
				file := names[random.IntN(len(names))]
				what := damage(random, damaged, file)
				if what == "" {
					continue
				}
				dir := damaged.write(t)
				r, err := fsck.Verify(dir)
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if !damaged.equal(readFiles(t, dir)) {
					t.Fatalf("%s: Verify has changed the files", what)
				}
				got, err := answers(t, dir)
				switch {
				case r.Sound && err != nil:
					t.Errorf("%s: found sound, but Open says: %v", what, err)
				case r.Sound && got != want && name != "continuous":
					t.Errorf("%s: found sound, but it is another state", what)
				case !r.Sound:
					found++
				default:
					harmless++
				}
			}
			t.Logf("%d found, %d harmless", found, harmless)
			if found == 0 || harmless == 0 {
				t.Error("the damage is not what this test is about")
			}
		})
	}
}

// damage flips a bit of a file or cuts it. Most of a file is zeros, so half of the bits are of a
// byte that is not.
func damage(random *rand.Rand, f files, name string) string {
	content := f[name]
	if len(content) == 0 {
		return ""
	}
	at := random.IntN(len(content))
	if random.IntN(4) == 0 {
		f[name] = content[:at]
		return fmt.Sprintf("%s cut to %d bytes", name, at)
	}
	if random.IntN(2) == 0 {
		for i := range content {
			if p := (at + i) % len(content); content[p] != 0 {
				at = p
				break
			}
		}
	}
	bit := random.IntN(8)
	content[at] ^= 1 << bit
	return fmt.Sprintf("%s, byte %d, bit %d", name, at, bit)
}

func TestVerifyAndInspectOfWhatIsNoState(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "nothing")} {
		if _, err := fsck.Verify(path); !errors.Is(err, mmrun.ErrNotExist) {
			t.Errorf("Verify: %v, want ErrNotExist", err)
		}
		if _, err := fsck.Inspect(path); !errors.Is(err, mmrun.ErrNotExist) {
			t.Errorf("Inspect: %v, want ErrNotExist", err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := fsck.Verify(dir); !errors.Is(err, mmrun.ErrCorrupt) {
		t.Errorf("Verify: %v, want ErrCorrupt", err)
	}
}

// A state in use is inspected as of its last commit, and not verified.
func TestInspectWhileInUse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	in := open(t, newRuntime(t), dir, guests.Load(t, "stores"), mmrun.WithWALSize(mmrun.MinWALSize))
	if _, err := fsck.Verify(dir); !errors.Is(err, mmrun.ErrLocked) {
		t.Errorf("Verify: %v, want ErrLocked", err)
	}
	done := make(chan error)
	go func() {
		for range 3000 { // several checkpoints
			if _, err := in.Call(context.Background(), "touch", 0, 1, 8,
				rand.Uint64()); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	var last uint64
	for {
		r, err := fsck.Inspect(dir)
		if err != nil {
			t.Fatal(err)
		}
		if !r.InUse || r.Owner != os.Getpid() {
			t.Fatalf("in use %v by %d", r.InUse, r.Owner)
		}
		// The guest counts its calls: a commit and its globals belong together.
		if r.Seq < last || len(r.Globals) != 1 || r.Globals[0].Lo != r.Seq-1 ||
			r.Seq < r.CheckpointSeq {
			t.Fatalf("commit %d (after %d), checkpoint %d, count %d, problem %q", r.Seq, last,
				r.CheckpointSeq, r.Globals[0].Lo, r.Problem)
		}
		last = r.Seq
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}
