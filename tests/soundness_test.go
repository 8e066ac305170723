package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// What a person does with verify is decide whether to trust a state. So, over random and hostile
// states:
//
//   - sound by verify: Open succeeds
//   - Open says ErrCorrupt: verify finds something
//   - Open succeeds and verify finds something: it is a page that no record names (Open reads none)
//   - a repair that says it has repaired: verify says sound, and Open succeeds
func TestSoundMeansThatItOpens(t *testing.T) {
	rounds := 1500
	if testing.Short() {
		rounds = 150
	}
	r := rand.New(rand.NewPCG(seed(t), 10))
	rt := newRuntime(t)
	bases := soundnessBases(t, rt)
	root := scratch.Dir(t)
	counts := map[string]int{}
	for i := range rounds {
		base := bases[r.IntN(len(bases))]
		dir := filepath.Join(root, fmt.Sprint(i))
		base.files.write(t, dir)
		var done []string
		for range 1 + r.IntN(2) {
			h := hostilities[r.IntN(len(hostilities))]
			if err := h.do(dir, r); err != nil {
				continue // it does not apply to this state any more
			}
			done = append(done, h.name)
		}
		what := fmt.Sprintf("round %d: %s: %s", i, base.name, strings.Join(done, ", "))
		for _, outcome := range judge(t, rt, dir, what) {
			counts[outcome]++
		}
		if t.Failed() {
			t.Logf("kept: %s", dir)
			return
		}
		for _, left := range glob(t, dir+"*") {
			if err := os.RemoveAll(left); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("%d states: %v", rounds, counts)
	for _, want := range []string{"opened and sound", "refused and not sound", "repaired"} {
		if counts[want] == 0 {
			t.Errorf("no state was %s", want)
		}
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// judge asks verify, Open and repair about one state, and holds their answers against each other.
func judge(t *testing.T, rt wazero.Runtime, dir, what string) (outcomes []string) {
	t.Helper()
	report, err := fsck.Verify(dir)
	if err != nil {
		if errors.Is(err, mmrun.ErrNotExist) {
			return []string{"no state"}
		}
		t.Errorf("%s: verify: %v", what, err)
		return nil
	}
	in, err := mmrun.Open(ctx, rt, dir, nil)
	if err == nil {
		err = in.Close(ctx)
		if err != nil && report.Sound {
			t.Errorf("%s: sound and opened, and cannot be closed: %v", what, err)
		}
		err = nil
	}
	switch {
	case err == nil && report.Sound:
		outcomes = append(outcomes, "opened and sound")
	case err == nil:
		outcomes = append(outcomes, "opened and not sound")
		for _, c := range report.Checks {
			if len(c.Problems) > 0 && c.Name != "page sums" {
				t.Errorf("%s: opened, and verify finds in %s: %v", what, c.Name, c.Problems)
			}
		}
	case report.Sound:
		t.Errorf("%s: sound, and refused: %v", what, err)
	default:
		outcomes = append(outcomes, "refused and not sound")
	}
	if report.Sound {
		return outcomes
	}
	repair, err := fsck.Repair(dir, true)
	if err != nil {
		return append(outcomes, "not repaired")
	}
	if report, err = fsck.Verify(dir); err != nil || !report.Sound {
		t.Errorf("%s: repaired (%+v), and verify says: %+v, %v", what, repair, report, err)
	}
	if in, err = mmrun.Open(ctx, rt, dir, nil); err != nil {
		t.Errorf("%s: repaired (%+v), and refused: %v", what, repair, err)
		return outcomes
	}
	if err := in.Close(ctx); err != nil {
		t.Errorf("%s: repaired, and cannot be closed: %v", what, err)
	}
	return append(outcomes, "repaired")
}

type soundnessBase struct {
	name  string
	files snapshot
}

// soundnessBases are states of several modules, closed and as a kill leaves them.
func soundnessBases(t *testing.T, rt wazero.Runtime) (bases []soundnessBase) {
	t.Helper()
	root := scratch.Dir(t)
	for _, guest := range []struct {
		name string
		work func(in *mmrun.Instance)
	}{
		{"counter", func(in *mmrun.Instance) { call(t, in, "inc") }},
		{"stores", func(in *mmrun.Instance) { call(t, in, "one", 50_000, 5) }},
		{"types", func(in *mmrun.Instance) { call(t, in, "modify", 5) }},
	} {
		for _, mode := range modes {
			dir := filepath.Join(root, fmt.Sprint(guest.name, mode))
			in := open(t, rt, dir, guests.Load(t, guest.name), mmrun.WithMode(mode),
				mmrun.WithWALSize(mmrun.MinWALSize))
			guest.work(in)
			if err := in.Update(ctx, func(tx *mmrun.Tx) error {
				tx.SetMeta([]byte("metadata"))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if err := in.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
			guest.work(in)
			files := readSnapshot(t, dir)
			bases = append(bases, soundnessBase{fmt.Sprintf("%s, %v, killed", guest.name, mode),
				files})
			closeInstance(t, in)
			bases = append(bases, soundnessBase{
				fmt.Sprintf("%s, %v, closed", guest.name, mode), readSnapshot(t, dir)})
		}
	}
	return bases
}

// hostilities change a state on the disk. Those that go through the packages that write the files
// leave valid checksums: what they say is wrong all the same.
var hostilities = []struct {
	name string
	do   func(dir string, r *rand.Rand) error
}{
	{"nothing", func(string, *rand.Rand) error { return nil }},
	{"bits flipped", func(dir string, r *rand.Rand) error {
		return inAFile(dir, r, func(b []byte) []byte {
			for range 1 + r.IntN(4) {
				if len(b) > 0 {
					b[r.IntN(len(b))] ^= 1 << r.IntN(8)
				}
			}
			return b
		})
	}},
	{"a file cut", func(dir string, r *rand.Rand) error {
		return inAFile(dir, r, func(b []byte) []byte { return b[:r.IntN(len(b)+1)] })
	}},
	{"a file longer", func(dir string, r *rand.Rand) error {
		return inAFile(dir, r, func(b []byte) []byte {
			return append(b,
				make([]byte, r.IntN(9000))...)
		})
	}},
	{"zeros", func(dir string, r *rand.Rand) error {
		return inAFile(dir, r, func(b []byte) []byte {
			if len(b) > 0 {
				at := r.IntN(len(b))
				clear(b[at:min(at+1+r.IntN(5000), len(b))])
			}
			return b
		})
	}},
	{"a file missing", func(dir string, r *rand.Rand) error {
		return os.Remove(filepath.Join(dir, stateFile(r)))
	}},
	{"another slot", func(dir string, r *rand.Rand) error {
		f, err := globalsfile.Open(vfs.OS, filepath.Join(dir, "globals"))
		if err != nil {
			return err
		}
		s, err := f.Read()
		if err == nil {
			spoil(s, r)
			err = errors.Join(f.WriteSlot(s), f.Sync())
		}
		return errors.Join(err, f.Close())
	}},
	{"another record", func(dir string, r *rand.Rand) error {
		l, err := wal.Open(vfs.OS, dir, wal.MinSize)
		if err != nil {
			return err
		}
		var last uint64
		if _, s, err := slotOf(dir); err == nil {
			last = s.Seq
		}
		rec, err := l.Replay(last, func(wal.Record) error { return nil })
		if err != nil {
			return errors.Join(err, l.Close())
		}
		err = l.Reset(rec.LastSeq)
		if err == nil {
			small := make([]byte, r.IntN(60))
			for i := range small {
				small[i] = byte(r.IntN(256))
			}
			if r.IntN(2) == 0 {
				small = nil
			}
			c := &wal.Commit{Seq: rec.LastSeq + 1, WasmPages: uint32(r.IntN(70_000)), Small: small}
			if r.IntN(2) == 0 {
				c.Memory = make([]byte, 1<<20)
				c.Ranges = []wal.Range{{Offset: uint32(r.IntN(1<<20) &^ 15), Len: 8}}
			}
			err = l.Append(c)
		}
		return errors.Join(err, l.Close())
	}},
}

// slotOf reads the slot that counts.
func slotOf(dir string) (globalsfile.Report, *globalsfile.State, error) {
	s, report, err := globalsfile.Inspect(vfs.OS, filepath.Join(dir, "globals"))
	return report, s, err
}

// spoil makes of a small state one that the module cannot have, or could have.
func spoil(s *globalsfile.State, r *rand.Rand) {
	switch r.IntN(8) {
	case 0:
		s.MemoryPages = uint32(r.IntN(100_000))
	case 1:
		if len(s.Globals) > 0 {
			s.Globals[r.IntN(len(s.Globals))].Lo = r.Uint64() // perhaps no function
		}
	case 2:
		if len(s.Globals) > 0 {
			s.Globals[r.IntN(len(s.Globals))].Type ^= 3
		}
	case 3:
		s.Globals = s.Globals[:r.IntN(len(s.Globals)+1)]
	case 4:
		if len(s.Tables) > 0 { // longer or shorter than the module allows, perhaps
			i := r.IntN(len(s.Tables))
			s.Tables[i] = make([]int32, r.IntN(300))
			for at := range s.Tables[i] {
				s.Tables[i][at] = int32(r.IntN(30) - 3)
			}
		}
	case 5:
		s.Dropped = append(s.Dropped, true)
	case 6:
		s.Meta = make([]byte, r.IntN(10_000))
	case 7:
		s.Seq += uint64(r.IntN(5)) - 2
	}
}

func stateFile(r *rand.Rand) string {
	names := []string{"globals", "memory", "memory.sums", "wal.0", "wal.1", "module.wasm", "lock"}
	return names[r.IntN(len(names))]
}

// inAFile changes one file of a state.
func inAFile(dir string, r *rand.Rand, change func([]byte) []byte) error {
	path := filepath.Join(dir, stateFile(r))
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(b), 0o600)
}
