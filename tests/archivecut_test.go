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

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// cutOpen opens what a power cut has left in dir and gives a digest of the memory; there is false
// if no state is there.
func cutOpen(t *testing.T, rt wazero.Runtime, dir string) (sum [32]byte, there bool) {
	t.Helper()
	if _, err := os.Stat(filepath.Join(dir, "globals")); errors.Is(err, os.ErrNotExist) {
		return sum, false
	}
	if v, err := checkVerify(vfs.OS, bootAfterCut, dir); err != nil || !v.Sound {
		t.Fatalf("verify: %v, %+v", err, v)
	}
	in, err := mmrun.Open(ctx, rt, dir, nil, withBootID(bootAfterCut))
	if err != nil {
		t.Fatal(err)
	}
	defer closeInstance(t, in)
	if err := in.View(ctx, func(tx *mmrun.Tx) error {
		b, _ := tx.Module().Memory().Read(0, tx.Module().Memory().Size())
		sum = sha256.Sum256(b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return sum, true
}

// The power is cut before each file operation of restore, fork and compact: the state they work on
// is whole, and what they make is whole or not there; it is there once they have returned.
func TestPowerCutsOfArchives(t *testing.T) {
	rt := newRuntime(t)
	source := filepath.Join(t.TempDir(), "s")
	in := open(t, rt, source, guests.Load(t, "stores"), withBootID(bootOfWorkload))
	call(t, in, "grow", 1)
	for page := range uint64(20) {
		call(t, in, "one", page*4096, page+5)
	}
	for page := uint64(1); page < 20; page += 3 { // compact finds them
		call(t, in, "one", page*4096, 0)
	}
	closeInstance(t, in)
	want, _ := cutOpen(t, rt, source)
	work := archive.Archiver{Boot: bootOfWorkload}
	var snapshot bytes.Buffer
	if _, err := work.Snapshot(ctx, source, &snapshot); err != nil {
		t.Fatal(err)
	}
	random := 4
	if testing.Short() {
		random = 1
	}
	for _, job := range []struct {
		name  string
		makes bool
		do    func(a archive.Archiver, state, to string) error
	}{
		{"restore", true, func(a archive.Archiver, _, to string) error {
			_, err := a.Restore(ctx, bytes.NewReader(snapshot.Bytes()), to)
			return err
		}},
		{"fork", true, func(a archive.Archiver, state, to string) error {
			_, err := a.Fork(ctx, state, to)
			return err
		}},
		{"compact", false, func(a archive.Archiver, state, _ string) error {
			freed, err := a.Compact(ctx, state)
			if err == nil && freed == 0 {
				err = errors.New("nothing was freed")
			}
			return err
		}},
	} {
		t.Run(job.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.CopyFS(filepath.Join(root, "s"), os.DirFS(source)); err != nil {
				t.Fatal(err)
			}
			images, seen := []*faultfs.Image(nil), make(map[uint64]bool)
			keep := func(more ...*faultfs.Image) {
				for _, im := range more {
					if h := im.Hash(); !seen[h] {
						seen[h] = true
						images = append(images, im)
					}
				}
			}
			rec, err := faultfs.NewRecorder(root)
			if err != nil {
				t.Fatal(err)
			}
			defer rec.Close()
			rnd := rand.New(rand.NewPCG(seed(t), 3))
			rec.Before = func(*faultfs.Op) { keep(rec.Cuts(rnd, random)...) }
			a := archive.Archiver{FS: rec.FS(), Boot: bootOfWorkload}
			if err := job.do(a, filepath.Join(root, "s"), filepath.Join(root, "made")); err != nil {
				t.Fatal(err)
			}
			rec.Before = nil
			made := 0
			look := func(im *faultfs.Image, finished bool) {
				dir := t.TempDir()
				if err := im.Write(dir); err != nil {
					t.Fatal(err)
				}
				at := fmt.Sprintf("%s, finished %t: ", im.Plan, finished)
				if sum, there := cutOpen(t, rt, filepath.Join(dir, "s")); !there || sum != want {
					t.Fatal(at, "the state is not what it was: ", there)
				}
				sum, there := cutOpen(t, rt, filepath.Join(dir, "made"))
				if there {
					made++
				}
				if there && sum != want || finished && there != job.makes {
					t.Fatal(at, "what was made is not what it should be: ", there)
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
			}
			for _, im := range images {
				look(im, false)
			}
			look(rec.CutNothing(), true)
			t.Logf("%d images, %d with a state made", len(images)+1, made)
			// Holes read as the zeros that were there: images of compact are the same ones.
			if job.makes && len(images) < 3 {
				t.Error("the power was hardly cut")
			}
		})
	}
}
