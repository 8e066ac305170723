package tests

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// The tests of this file disturb a repair: each operation fails once, and the power is cut before
// each one. What was to be repaired must then still be there, and a second repair must end where
// the first one would have.

// damaged is a state that was killed, with commits that were never synced, and then damaged.
type damaged struct {
	name  string
	mode  mmrun.Mode
	force bool
	// hurt changes what lies in dir.
	hurt func(d *damager)
	// accepts tells that content is taken as it is, which is not that of any commit.
	accepts bool
}

var damages = []damaged{
	{name: "a record", mode: mmrun.Atomic, hurt: func(d *damager) {
		d.flip(statedir.WALNames[1],
			4096+200)
	}},
	{name: "the first record", mode: mmrun.Atomic,
		hurt: func(d *damager) { d.flip(statedir.WALNames[1], 4096+40) }},
	{name: "header of the wal", mode: mmrun.Atomic,
		hurt: func(d *damager) { d.flip(statedir.WALNames[0], 20) }},
	{name: "a missing segment", mode: mmrun.Atomic,
		hurt: func(d *damager) { d.remove(statedir.WALNames[1]) }},
	{name: "a page", mode: mmrun.Atomic, force: true, accepts: true,
		hurt: func(d *damager) { d.flip(statedir.MemoryName, 3000) }},
	{name: "a page and a record", mode: mmrun.Atomic, force: true, accepts: true,
		hurt: func(d *damager) {
			d.flip(statedir.MemoryName, 3000)
			d.flip(statedir.WALNames[1], 4096+200)
		}},
	{name: "missing page sums", mode: mmrun.Atomic, force: true,
		hurt: func(d *damager) { d.remove(statedir.ChecksumsName) }},
	{name: "a torn event", mode: mmrun.Continuous, force: true, accepts: true,
		hurt: func(d *damager) { d.flip(statedir.GlobalsName, 8192) }},
}

// damager changes the files of a state.
type damager struct {
	fs  vfs.FS
	dir string
	err error
}

func (d *damager) flip(name string, offset int64) {
	f, err := d.fs.OpenFile(filepath.Join(d.dir, name), os.O_RDWR, 0)
	if err == nil {
		b := make([]byte, 1)
		if _, err = f.ReadAt(b, offset); err == nil {
			b[0] ^= 1
			_, err = f.WriteAt(b, offset)
		}
		err = errors.Join(err, f.Close())
	}
	d.err = errors.Join(d.err, err)
}

func (d *damager) remove(name string) {
	d.err = errors.Join(d.err, d.fs.Remove(filepath.Join(d.dir, name)), d.fs.SyncDir(d.dir))
}

// repairSteps leave commits in the checkpoint, commits that were synced and commits that were not.
func repairSteps() []step {
	return []step{
		event("growth", do("grow", 1), do("fill", 0, 30000, 0x11)),
		checkpointStep,
		event("one store", do("one", 100, 1)),
		event("stores", do("random", 1, 8)).withMeta([]byte("cursor")),
		syncStep,
		event("4 KB", do("fill", 20000, 4000, 0x22)),
		event("growth", do("grow", 1), do("one", 140000, 2)),
		event("one store", do("one", 8, 3)),
	}
}

// make makes the damaged state below the root of fsys and returns its directory and the last commit
// that was synced.
func (x *damaged) make(m *machine, fsys vfs.FS, root string) (dir string, synced uint64,
	err error) {
	dir = filepath.Join(root, "s")
	in, err := m.open(dir, fsys, true, mmrun.WithMode(x.mode), mmrun.WithSync(mmrun.SyncNever),
		withBootID(bootOfWorkload))
	if err != nil {
		return dir, 0, err
	}
	for _, s := range repairSteps() {
		if err := runStep(in, s); err != nil {
			return dir, 0, fmt.Errorf("%s: %w", s.name, err)
		}
		if s.do == doSync {
			synced = in.Seq()
		}
	}
	abandon(in)
	d := &damager{fs: fsys, dir: dir}
	x.hurt(d)
	return dir, synced, d.err
}

// outcome is the state after a repair.
type outcome struct {
	seq    uint64
	digest digest
}

// repaired repairs a state on a sound disk, if it needs that, and says what it is then.
func (x *damaged) repaired(m *machine, boot [16]byte, dir string, needed bool) (o outcome,
	err error) {
	report, err := checkRepair(vfs.OS, boot, dir, x.force)
	if err != nil {
		return o, fmt.Errorf("repair: %w", err)
	}
	if needed && report.Backup == "" {
		return o, fmt.Errorf("nothing was repaired: %+v", report)
	}
	if v, err := checkVerify(vfs.OS, boot, dir); err != nil || !v.Sound {
		return o, fmt.Errorf("not sound after its repair: %+v, %w", v, err)
	}
	in, err := m.open(dir, vfs.OS, false, withBootID(boot))
	if err != nil {
		return o, fmt.Errorf("open after its repair: %w", err)
	}
	defer func() { abandon(in) }()
	if o.seq = in.Seq(); o.seq != report.Seq {
		return o, fmt.Errorf("commit %d came back, the report says %d", o.seq, report.Seq)
	}
	if o.digest, err = digestOf(in); err != nil {
		return o, err
	}
	// It must go on from there.
	if err := runEvent(in, event("go on", do("random", 9, 5)), nil); err != nil {
		return o, err
	}
	return o, in.Close(bg)
}

// undisturbed is what an undisturbed repair makes of x.
func (x *damaged) undisturbed(t *testing.T, m *machine, want []digest) outcome {
	t.Helper()
	dir, _, err := x.make(m, vfs.OS, scratch.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	if !x.force {
		if _, err := m.open(dir, vfs.OS, false, withBootID(bootOfWorkload)); !errors.Is(err,
			mmrun.ErrCorrupt) {
			t.Fatalf("open of the damaged state: %v, want ErrCorrupt", err)
		}
	}
	o, err := x.repaired(m, bootOfWorkload, dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if !x.accepts && o.digest != want[o.seq] {
		t.Fatalf("commit %d came back with the content of another one", o.seq)
	}
	return o
}

// filesOf reads the files of a directory that a repair keeps.
func filesOf(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := make(map[string][]byte)
	for _, e := range entries {
		if e.Name() != statedir.LockName {
			if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// keptIn tells whether all of files are in dir, or in a directory that a repair has put beside it.
func keptIn(dir string, files map[string][]byte) bool {
	places, _ := filepath.Glob(dir + "*")
	return slices.ContainsFunc(places, func(place string) bool {
		found, err := filesOf(place)
		if err != nil {
			return false
		}
		for name, content := range files {
			if got, ok := found[name]; !ok || !bytes.Equal(got, content) {
				return false
			}
		}
		return true
	})
}

// A repair of which any one operation fails says so, has lost nothing, and can be done again.
func TestEachOperationOfARepairFails(t *testing.T) {
	faults := []faultfs.Fault{faultfs.EIO, faultfs.ENOSPC, faultfs.Short, faultfs.After}
	every := 1
	if testing.Short() {
		every = 10
	}
	for _, x := range damages {
		t.Run(x.name, func(t *testing.T) {
			m := newMachine(t)
			want := predict(t, m.rt, m.wasm, x.mode, repairSteps())
			o := x.undisturbed(t, m, want)
			var runs, failed, ops atomic.Int64
			parallel(t, len(faults), func(m *machine, root string, f int) error {
				for k := 1; ; k += every {
					root := filepath.Join(root, fmt.Sprint(k))
					if err := os.Mkdir(root, 0o777); err != nil {
						return err
					}
					dir, _, err := x.make(m, vfs.OS, root)
					if err != nil {
						return err
					}
					before, err := filesOf(dir)
					if err != nil {
						return err
					}
					inj := faultfs.NewInjector(k, faults[f-1], k%2 == 0)
					_, err = checkRepair(faultfs.Wrap(vfs.OS, inj.Layer), bootOfWorkload, dir,
						x.force)
					if len(inj.Failed()) == 0 {
						ops.Store(int64(k - 1))
						return err
					}
					op := inj.Failed()[0]
					if faults[f-1] == faultfs.Short && op.Kind != faultfs.WriteAt {
						continue // a write alone can be short
					}
					at := fmt.Sprintf("operation %d (%v): %v", k, &op, faults[f-1])
					if err != nil {
						failed.Add(1)
						if !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.ENOSPC) ||
							!strings.Contains(err.Error(), dir) {
							return fmt.Errorf("%s: the error does not say what failed and where: "+
								"%w", at, err)
						}
					}
					if !keptIn(dir, before) {
						return fmt.Errorf("%s: the files as they were are neither in their place "+
							"nor kept", at)
					}
					got, err := x.repaired(m, bootOfWorkload, dir, false)
					if err != nil {
						return fmt.Errorf("%s: the second time: %w", at, err)
					}
					if got != o {
						return fmt.Errorf("%s: the second repair leads to commit %d, an "+
							"undisturbed one to %d, or their contents differ", at, got.seq, o.seq)
					}
					runs.Add(1)
					if err := os.RemoveAll(root); err != nil {
						return err
					}
				}
			})
			t.Logf("%d operations, failed one by one in %d runs, of which %d were errors of the "+
				"repair", ops.Load(), runs.Load(), failed.Load())
		})
	}
}

// A repair during which the power is cut can be done again, and nothing that was durable before is
// lost.
func TestPowerCutDuringRepair(t *testing.T) {
	random := 6
	if testing.Short() {
		random = 2
	}
	for _, x := range damages {
		t.Run(x.name, func(t *testing.T) {
			start := time.Now()
			c := x.cutRepair(t, random, nil)
			for _, v := range c.violations {
				t.Error(v)
			}
			t.Logf("%d images repaired again, %d refused because nothing was left, %.1fs", c.images,
				c.torn.Load(), time.Since(start).Seconds())
		})
	}
}

// repairCut cuts the power before each operation of a repair, and checks what is left.
type repairCut struct {
	*damaged
	want    []digest
	outcome outcome
	synced  uint64 // the last commit that was synced before the repair

	images     int
	torn       atomic.Int64 // images of a torn state of which nothing was left
	violations []error
}

func (x *damaged) cutRepair(t *testing.T, random int, skip func(op *faultfs.Op) bool) *repairCut {
	t.Helper()
	m := newMachine(t)
	c := &repairCut{damaged: x, want: predict(t, m.rt, m.wasm, x.mode, repairSteps())}
	c.outcome = x.undisturbed(t, m, c.want)
	root := scratch.Dir(t)
	rec, err := faultfs.NewRecorder(root)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	dir, synced, err := x.make(m, rec.FS(), root)
	if err != nil {
		t.Fatal(err)
	}
	c.synced = synced
	before, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	rec.Skip = skip
	var images []cutJob
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := make(map[uint64]bool)
	touched := false
	rec.Before = func(op *faultfs.Op) {
		for _, im := range rec.Cuts(rnd, random) {
			if !seen[im.Hash()] {
				seen[im.Hash()] = true
				images = append(images, cutJob{image: im, at: fmt.Sprint(op)})
			}
		}
		changes := op != nil && (op.Kind == faultfs.WriteAt || op.Kind == faultfs.Truncate ||
			op.Kind == faultfs.Map)
		if changes && filepath.Dir(op.Path) == dir && !touched {
			touched = true
			// From here on the files as they were are those that were kept.
			kept := scratch.Dir(t)
			if err := rec.CutNothing().Write(kept); err != nil {
				t.Error(err)
			} else if !keptIn(filepath.Join(kept, "s.damaged-1"), before) {
				c.violations = append(c.violations,
					fmt.Errorf("before %v: the files kept are not on the disk", op))
			}
		}
	}
	if _, err := checkRepair(rec.FS(), bootOfWorkload, dir, x.force); err != nil {
		t.Fatal(err)
	}
	rec.Point()
	if !touched {
		t.Error("the repair has changed nothing")
	}
	images = append(images, cutJob{image: rec.CutNothing(), at: "the end",
		bounds: bounds{floor: c.outcome.seq}})
	c.images = len(images)
	c.violations = append(c.violations, parallelErrors(t, len(images), 3,
		func(m *machine, root string, i int) error {
			im := images[i-1]
			if err := c.check(m, root, im); err != nil {
				return fmt.Errorf("power cut before %s (%s): %w", im.at, im.image.Plan, err)
			}
			return nil
		})...)
	return c
}

// check repairs what a cut has left. The floor of an image is that of a repair that has ended, or
// 0.
func (c *repairCut) check(m *machine, root string, im cutJob) error {
	if err := im.image.Write(root); err != nil {
		return err
	}
	dir := filepath.Join(root, "s")
	v, err := checkVerify(vfs.OS, bootAfterCut, dir)
	if err != nil {
		return err
	}
	if im.floor > 0 && !v.Sound {
		return fmt.Errorf("a repair had ended: %+v", v)
	}
	if in, err := m.open(dir, vfs.OS, false, withBootID(bootAfterCut)); err == nil {
		abandon(in)
	} else if c.mode == mmrun.Continuous && !errors.Is(err, mmrun.ErrTorn) {
		return fmt.Errorf("the state was torn, and is something else now: %w", err)
	}
	got, err := c.repaired(m, bootAfterCut, dir, false)
	if errors.Is(err, mmrun.ErrTorn) && c.mode == mmrun.Continuous &&
		strings.Contains(err.Error(), "nothing is left") {
		c.torn.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	// the cut may have taken the damage, too
	floor, last := max(im.floor, min(c.synced, c.outcome.seq)), uint64(len(c.want)-1)
	switch {
	case got.seq < floor || got.seq > last:
		return fmt.Errorf("commit %d came back; it must be one from %d to %d", got.seq, floor, last)
	case im.floor > 0 && got != c.outcome:
		return fmt.Errorf("commit %d came back with another content than right after the repair",
			got.seq)
	case got.digest == c.want[got.seq], got == c.outcome:
	case !c.accepts, c.mode == mmrun.Atomic && got.seq == c.outcome.seq:
		return fmt.Errorf("commit %d came back with another content", got.seq)
	}
	return nil
}

// TestEachSyncOfARepairIsNeeded leaves out one sync at a time of those that a repair alone makes,
// as TestEachSyncIsNeeded does with the others.
func TestEachSyncOfARepairIsNeeded(t *testing.T) {
	if !*ablation {
		t.Skip("takes long; run with -ablation")
	}
	uses := make(map[string][]int) // by site: indexes of damages
	for i := range damages {
		damages[i].cutRepair(t, 0, func(op *faultfs.Op) bool {
			if site := syncSite(op); !slices.Contains(uses[site], i) {
				uses[site] = append(uses[site], i)
			}
			return false
		})
	}
	sites := slices.DeleteFunc(slices.Sorted(maps.Keys(uses)), func(site string) bool {
		name, _, _ := strings.Cut(site, ":")
		return name != "mmrun.copySparse" && !strings.HasPrefix(name, "mmrun.(*repair)")
	})
	table := "| sync left out | caught by | images |\n|---|---|---:|\n"
	for n, site := range sites {
		images, caught := 0, ""
		for _, i := range uses[site] {
			c := damages[i].cutRepair(t, 6,
				func(op *faultfs.Op) bool { return syncSite(op) == site })
			if images += c.images; len(c.violations) > 0 {
				caught = damages[i].name + ": " + c.violations[0].Error()
				break
			}
		}
		if caught == "" {
			t.Errorf("%s left out, and no cut did harm (%d images)", site, images)
		}
		table += fmt.Sprintf("| `%s` | %s | %d |\n", siteName(sites, n),
			scratchPath.ReplaceAllString(caught, ""), images)
	}
	t.Logf("%d syncs\n%s", len(sites), table)
}

// A wal that cannot be read is not one that is damaged: a repair that took it for that would throw
// its commits away.
func TestRepairLeavesAWALAloneThatCannotBeRead(t *testing.T) {
	m := newMachine(t)
	x := damaged{mode: mmrun.Atomic, hurt: func(d *damager) { d.flip(statedir.MemoryName, 3000) }}
	dir, _, err := x.make(m, vfs.OS, scratch.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	before, err := filesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	unreadable := faultfs.Wrap(vfs.OS, func(op *faultfs.Op, do func() error) error {
		if op.Kind == faultfs.ReadAt && filepath.Base(op.Path) == statedir.WALNames[0] {
			return syscall.EIO
		}
		return do()
	})
	if _, err := checkRepair(unreadable, bootOfWorkload, dir, true); !errors.Is(err, syscall.EIO) ||
		errors.Is(err, mmrun.ErrCorrupt) {
		t.Errorf("repair gave %v, want EIO", err)
	}
	if after, err := filesOf(dir); err != nil || !maps.EqualFunc(before, after, bytes.Equal) {
		t.Errorf("a repair that was refused has changed the state (%v)", err)
	}
}
