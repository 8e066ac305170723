package tests

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// content is all that a guest of the kind "stores" can know of itself.
func content(t testing.TB, in *mmrun.Instance) string {
	t.Helper()
	var sum string
	seq := in.Seq()
	err := in.View(ctx, func(tx *mmrun.Tx) error {
		count, err := tx.Call(ctx, "count")
		if err != nil {
			return err
		}
		memory, _ := tx.Memory().Read(0, tx.Memory().Size())
		sum = fmt.Sprintf("commit %d, count %d, memory of %d bytes %x", seq, count[0], len(memory),
			sha256.Sum256(memory))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// snapshot is the files of a state.
type snapshot map[string][]byte

func readSnapshot(t *testing.T, dir string) snapshot {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := snapshot{}
	for _, e := range entries {
		if s[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s snapshot) write(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, data := range s {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// A flipped bit or a cut, anywhere in any file of a state: Verify finds it, or Open refuses the
// state, or what Open gives is what was there before the damage.
func TestDamageIsFoundOrHarmless(t *testing.T) {
	flips, cuts := 400, 60 // for each file and kind of state
	if testing.Short() {
		flips, cuts = 100, 20
	}
	base := scratch.Dir(t)
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter()) // compiles faster
	t.Cleanup(func() { rt.Close(ctx) })
	wasm := guests.Load(t, "stores")

	// What a kill leaves is there, synced or not, and damage to it must be found just as well.
	kinds := map[string]snapshot{}
	var want string
	for name, policy := range map[string]mmrun.SyncPolicy{"synced": mmrun.SyncAlways,
		"not synced": mmrun.SyncNever} {
		dir := filepath.Join(base, name)
		in := open(t, rt, dir, wasm, mmrun.WithWALSize(mmrun.MinWALSize), mmrun.WithSync(policy))
		for i := range uint64(1200) { // both segments are in use
			call(t, in, "one", i%16*4096+i/16*8, i+1)
		}
		want = content(t, in)
		if s := readSnapshot(t, dir); policy == mmrun.SyncAlways ||
			bytes.Contains(s["lock"], []byte("open ")) {
			kinds["killed, "+name] = s
		} else {
			t.Log("this system does not tell a kill from a power cut")
		}
		closeInstance(t, in)
		if policy == mmrun.SyncAlways {
			kinds["closed"] = readSnapshot(t, dir)
		}
	}

	random := rand.New(rand.NewPCG(1, 2))
	var tried, found, refused, harmless int
	check := func(kind string, s snapshot, name, what string, damaged []byte) {
		t.Helper()
		whole := s[name]
		s[name] = damaged
		defer func() { s[name] = whole }()
		dir := filepath.Join(base, "damaged")
		s.write(t, dir)
		tried++
		report, err := fsck.Verify(dir)
		sound := err == nil && report.Sound
		in, err := mmrun.Open(ctx, rt, dir, nil)
		if err != nil {
			refused++
			if sound {
				t.Errorf("%s, %s, %s: Verify calls it sound, Open says %v", kind, name, what, err)
			}
			return
		}
		got := content(t, in)
		if err := in.Close(ctx); err != nil {
			t.Errorf("%s, %s, %s: close: %v", kind, name, what, err)
		}
		switch {
		case got == want:
			harmless++
		case !sound:
			found++
		default:
			t.Errorf("%s, %s, %s: silently another state:\n got %s\nwant %s", kind, name, what, got,
				want)
		}
	}
	for kind, s := range kinds {
		for name, data := range s {
			if name == "lock" || len(data) == 0 {
				continue
			}
			for range flips {
				// Half of the flips near the begin, where the headers and the first records are.
				limit := len(data)
				if random.IntN(2) == 0 {
					limit = min(limit, 8192)
				}
				at, bit := random.IntN(limit), random.IntN(8)
				damaged := append([]byte(nil), data...)
				damaged[at] ^= 1 << bit
				check(kind, s, name, fmt.Sprintf("bit %d of byte %d", bit, at), damaged)
			}
			for range cuts {
				at := random.IntN(len(data))
				check(kind, s, name, fmt.Sprintf("cut to %d bytes", at), data[:at])
			}
		}
	}
	t.Logf("damage: %d bits flipped and files cut: %d refused by Open, %d found by Verify alone, "+
		"%d harmless, 0 silently wrong",
		tried, refused, found, harmless)
}
