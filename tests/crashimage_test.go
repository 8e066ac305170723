package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// The tests of this file cut the power after every file operation of a workload, and at places
// inside and between events where no operation is, and open what the disk could then hold.

var (
	bootOfWorkload = [16]byte{1}
	bootAfterCut   = [16]byte{2}
	bootAfterThat  = [16]byte{3} // when the power is cut a second time
)

// bounds is what a state that comes back must be, at one instant of a workload.
type bounds struct {
	floor    uint64 // the last commit acknowledged as durable; 0: not even the creation
	started  uint64 // the last commit that was begun
	tearable bool   // continuous mode, and something was begun since the last sync
}

// cutJob is one image to be opened.
type cutJob struct {
	image *faultfs.Image
	bounds
	at string // where in the workload the power was cut
}

// cutter records a workload and gives out the images.
type cutter struct {
	rec    *faultfs.Recorder
	random int // images with random choices at each instant
	emit   func(cutJob)
	// opsOnly: the power is cut before operations only, and nothing holds up the workload between
	// them.
	opsOnly bool

	mu         sync.Mutex
	rnd        *rand.Rand
	now        bounds
	at         string
	seen       map[cutKey]bool
	generation uint64
	last       bounds
	points     int // instants at which the power was cut
	onOp       func(op *faultfs.Op)
}

type cutKey struct {
	hash     uint64
	floor    uint64
	tearable bool
}

func newCutter(t testing.TB, root string, seed uint64, random int, emit func(cutJob)) *cutter {
	t.Helper()
	rec, err := faultfs.NewRecorder(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rec.Close() })
	c := &cutter{rec: rec, random: random, emit: emit, rnd: rand.New(rand.NewPCG(seed, 0)),
		seen: make(map[cutKey]bool)}
	rec.Before = c.before
	return c
}

// before is called with the recorder's lock held.
func (c *cutter) before(op *faultfs.Op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.onOp != nil && op != nil {
		c.onOp(op)
	}
	if c.rec.Generation() == c.generation && c.now == c.last {
		return
	}
	c.generation, c.last = c.rec.Generation(), c.now
	c.points++
	at := c.at
	if op != nil {
		at += ", before " + op.Kind.String() + " " + filepath.Base(op.Path)
	}
	for _, im := range c.rec.Cuts(c.rnd, c.random) {
		key := cutKey{im.Hash(), c.now.floor, c.now.tearable}
		if !c.seen[key] {
			c.seen[key] = true
			c.emit(cutJob{im, c.now, at})
		}
	}
}

func (c *cutter) set(change func(b *bounds)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.now)
}

// durable notes an acknowledgement.
func (c *cutter) durable(seq uint64) {
	c.set(func(b *bounds) { b.floor, b.tearable = max(b.floor, seq), false })
}

// run does the steps of a workload, which must all succeed.
func (c *cutter) run(m *machine, dir string, mode mmrun.Mode, policy mmrun.SyncPolicy,
	steps []step) (err error) {
	c.at = "open"
	c.set(func(b *bounds) { b.started = 1 })
	open := func(create bool, mode mmrun.Mode) (*mmrun.Instance, error) {
		return m.open(dir, c.rec.FS(), create, withBootID(bootOfWorkload), mmrun.WithMode(mode),
			mmrun.WithSync(policy))
	}
	in, err := open(true, mode)
	if err != nil {
		return err
	}
	c.durable(1)
	defer func() { abandon(in) }()
	timer := make(chan struct{}, 1)
	c.mu.Lock()
	c.onOp = func(op *faultfs.Op) {
		if op.Kind == faultfs.Sync && strings.Contains(faultfs.Site(modulePath),
			"syncInBackground") {
			select {
			case timer <- struct{}{}:
			default:
			}
		}
	}
	c.mu.Unlock()
	for i, s := range steps {
		seq := in.Seq()
		c.mu.Lock()
		c.at = fmt.Sprintf("step %d (%s)", i, s.name)
		c.mu.Unlock()
		switch s.do {
		case doEvent:
			committed := !s.view && (!s.traps || in.Mode() == mmrun.Continuous)
			if committed {
				c.set(func(b *bounds) {
					b.started = seq + 1
					b.tearable = b.tearable ||
						in.Mode() == mmrun.Continuous
				})
			}
			if s.view && in.Mode() == mmrun.Continuous {
				continue
			}
			between := c.rec.Point
			if c.opsOnly {
				between = nil
			}
			if err := runEvent(in, s, between); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if committed && in.Seq() != seq+1 || !committed && in.Seq() != seq {
				return fmt.Errorf("%s: from commit %d to %d", s.name, seq, in.Seq())
			}
			if committed && policy == mmrun.SyncAlways {
				c.durable(seq + 1)
			}
			if s.do == doEvent && policy > 0 {
				<-timer
				c.rec.Point() // the operation that was announced has taken place after that
				c.durable(seq + 1)
			}
		case doSync:
			if err := in.Sync(bg); err != nil {
				return err
			}
			c.durable(seq)
		case doCheckpoint:
			if err := in.Checkpoint(bg); err != nil {
				return err
			}
			c.durable(seq)
		case doReopen:
			if err := in.Close(bg); err != nil {
				return err
			}
			c.durable(seq)
			if in, err = open(false, s.mode); err != nil {
				return err
			}
		case doKill:
			abandon(in)
			if in, err = open(false, 0); err != nil {
				return err
			}
			if in.Mode() == mmrun.Atomic {
				c.durable(seq) // what recovery has folded
			}
		}
		if in.Seq() < seq {
			return fmt.Errorf("%s: commit %d was lost without a power cut", s.name, seq)
		}
		if !c.opsOnly {
			c.rec.Point()
		}
	}
	return nil
}

const modulePath = "github.com/mmrun/mmrun"

// checker opens images. One for each goroutine.
type checker struct {
	m    *machine
	want []digest
	work string // a directory of its own
	boot [16]byte
	skip func(op *faultfs.Op) bool
	n    int
	torn int // images refused with ErrTorn
}

// unpack writes an image where it can be opened and returns the root of its tree.
func (c *checker) unpack(im *faultfs.Image) (root string, err error) {
	c.n++
	root = filepath.Join(c.work, fmt.Sprint(c.n))
	if err := os.Mkdir(root, 0o777); err != nil {
		return "", err
	}
	return root, im.Write(root)
}

// check opens one image and returns the commit that came back, 0 if the state was rightly refused.
func (c *checker) check(job cutJob, want []digest) (seq uint64, err error) {
	root, err := c.unpack(job.image)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(root)
	dir := filepath.Join(root, "s")
	var verified *fsck.VerifyReport
	if job.floor > 0 && c.n%4 == 0 {
		if verified, err = fsck.Verify(dir); err != nil {
			return 0, fmt.Errorf("verify: %w", err)
		}
	}
	in, err := c.m.open(dir, vfs.OS, job.floor == 0, withBootID(c.boot))
	if errors.Is(err, mmrun.ErrTorn) && job.tearable {
		c.torn++
		if c.torn%4 == 0 {
			return 0, c.acceptTorn(dir)
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	defer func() { abandon(in) }()
	seq = in.Seq()
	switch {
	case seq < job.floor:
		return 0, fmt.Errorf("lost: commit %d had been acknowledged as durable, commit %d came "+
			"back", job.floor, seq)
	case seq > job.started:
		return 0, fmt.Errorf("commit %d came back, commit %d was the last begun", seq, job.started)
	}
	if err := checkState(in, want); err != nil {
		return 0, err
	}
	if verified != nil && (!verified.Sound || verified.Seq != seq) {
		return 0, fmt.Errorf("verify does not agree: %+v", verified)
	}
	if err := checkSums(in); err != nil {
		return 0, err
	}
	if c.n%16 != 0 {
		return seq, nil
	}
	// It must go on from there, too.
	if err := runEvent(in, event("go on", do("random", uint64(c.n), 5)), nil); err != nil {
		return 0, fmt.Errorf("an event after recovery: %w", err)
	}
	after, err := digestOf(in)
	if err != nil {
		return 0, err
	}
	if err := in.Close(bg); err != nil {
		return 0, fmt.Errorf("close after recovery: %w", err)
	}
	if in, err = c.m.open(dir, vfs.OS, false, withBootID(c.boot)); err != nil {
		return 0, fmt.Errorf("second open: %w", err)
	}
	if got, err := digestOf(in); err != nil || got != after || in.Seq() != seq+1 {
		return 0, fmt.Errorf("second open: commit %d, want %d with the same content (%v)", in.Seq(),
			seq+1, err)
	}
	return seq, nil
}

// acceptTorn opens a torn state as it is. Nothing can be said about its content.
func (c *checker) acceptTorn(dir string) error {
	in, err := c.m.open(dir, vfs.OS, false, withBootID(c.boot), mmrun.WithAcceptTorn())
	if errors.Is(err, mmrun.ErrTorn) && strings.Contains(err.Error(), "nothing is left") {
		return nil // the cut took both slots
	}
	if err != nil {
		return fmt.Errorf("open as it is: %w", err)
	}
	defer abandon(in)
	return runEvent(in, event("go on", do("random", 1, 5)), nil)
}

// checkSums holds the memory file of a state that was just opened against its page checksums.
func checkSums(in *mmrun.Instance) error {
	if in.Mode() != mmrun.Atomic {
		return nil
	}
	memory, err := os.Open(filepath.Join(in.Dir(), statedir.MemoryName))
	if err != nil {
		return err
	}
	defer memory.Close()
	sums, err := os.Open(filepath.Join(in.Dir(), statedir.ChecksumsName))
	if err != nil {
		return err
	}
	defer sums.Close()
	var bad []uint32
	err = pagefile.Verify(memory, sums,
		uint64(storeOf(in).State().MemoryPages)*mmapmem.WasmPageSize,
		func(page uint32) { bad = append(bad, page) })
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("after recovery to commit %d, pages %v do not have their checksums",
			storeOf(in).State().Seq, bad)
	}
	return err
}

// checkDeep cuts the power again during the recovery from an image, and during what is done then:
// other events than those that the first cut took away, under the same numbers.
func (c *checker) checkDeep(t testing.TB, job cutJob, images int) (opened int, err error) {
	base, err := c.check(job, c.want)
	if err != nil || base == 0 {
		return 1, err
	}
	root, err := c.unpack(job.image)
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(root)
	// There are thousands, of which some spread over the whole of it are kept, each with the same
	// chance.
	var jobs []cutJob
	rnd, met := rand.New(rand.NewPCG(uint64(c.n), 1)), 0
	second := newCutter(t, root, uint64(c.n), 2, func(j cutJob) {
		met++
		if len(jobs) < images {
			jobs = append(jobs, j)
		} else if i := rnd.IntN(met); i < images {
			jobs[i] = j
		}
	})
	defer second.rec.Close()
	second.rec.Skip = c.skip
	second.at = job.at + "; recovery"
	second.now = bounds{floor: base, started: base}
	if job.floor == 0 {
		second.now.floor = 0
	}
	want := slices.Clone(c.want[:base+1])
	in, err := c.m.open(filepath.Join(root, "s"), second.rec.FS(), job.floor == 0,
		withBootID(bootAfterCut))
	if err != nil {
		return 1, fmt.Errorf("recovery: %w", err)
	}
	defer func() { abandon(in) }()
	second.durable(base)
	for i, s := range []step{
		event("other stores", do("random", 1000+base, 6)),
		event("another fill", do("fill", 200, 20000, 0x77),
			do("one", 0, base)).withMeta([]byte("other")),
		syncStep,
		event("a third one", do("random", 2000+base, 3)),
		checkpointStep,
	} {
		second.at = fmt.Sprintf("%s; after recovery, step %d (%s)", job.at, i, s.name)
		switch s.do {
		case doSync:
			err = in.Sync(bg)
			second.durable(in.Seq())
		case doCheckpoint:
			err = in.Checkpoint(bg)
			second.durable(in.Seq())
		default:
			second.set(func(b *bounds) {
				b.started = in.Seq() + 1
				b.tearable = b.tearable ||
					in.Mode() == mmrun.Continuous
			})
			if err = runEvent(in, s, second.rec.Point); err == nil {
				var d digest
				d, err = digestOf(in)
				want = append(want, d)
			}
		}
		if err != nil {
			return 1, fmt.Errorf("%s: %w", second.at, err)
		}
		second.rec.Point()
	}
	abandon(in)
	c.boot = bootAfterThat
	defer func() { c.boot = bootAfterCut }()
	for i, j := range jobs {
		if _, err := c.check(j, want); err != nil {
			return i + 2, fmt.Errorf("second cut at %s (%s): %w", j.at, j.image.Plan, err)
		}
	}
	return 1 + len(jobs), nil
}

// enumeration is one run of one workload with all its cuts.
type enumeration struct {
	mode      mmrun.Mode
	policy    mmrun.SyncPolicy
	steps     []step
	seed      uint64
	random    int                       // random images at each instant
	deepEvery int                       // one of that many images is cut a second time; 0: none
	skip      func(op *faultfs.Op) bool // syncs to leave out
	first     bool                      // end at the first violation
	// the workload's goroutines take turns, and those in the background wait
	oneProc bool
}

type enumerated struct {
	points, images, torn, second int
	violations                   []string
}

func (e *enumeration) run(t testing.TB) enumerated {
	t.Helper()
	scratch := scratch.Dir(t)
	root := filepath.Join(scratch, "w")
	if err := os.Mkdir(root, 0o777); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t)
	want := predict(t, m.rt, m.wasm, e.mode, e.steps)
	var (
		result enumerated
		mu     sync.Mutex
		stop   = make(chan struct{})
		once   sync.Once
	)
	violation := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		result.violations = append(result.violations, fmt.Sprintf(format, args...))
		if e.first || len(result.violations) >= 5 {
			once.Do(func() { close(stop) })
		}
	}
	jobs := make(chan cutJob, 64)
	var workers sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		c := &checker{m: newMachine(t), want: want, boot: bootAfterCut, skip: e.skip,
			work: filepath.Join(scratch, fmt.Sprint("worker", w))}
		if err := os.Mkdir(c.work, 0o777); err != nil {
			t.Fatal(err)
		}
		workers.Go(func() {
			images, second := 0, 0
			since := 0 // the last image that was cut a second time
			for job := range jobs {
				select {
				case <-stop:
					continue
				default:
				}
				images++
				var err error
				if since++; e.deepEvery > 0 && since >= e.deepEvery {
					var n int
					if n, err = c.checkDeep(t, job, 40); n > 1 {
						since = 0 // else it was refused, and the next one's turn has come
					}
					second += n - 1
				} else {
					_, err = c.check(job, want)
				}
				if err != nil {
					violation("power cut at %s (%s): %v", job.at, job.image.Plan, err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			result.images += images
			result.second += second
			result.torn += c.torn
		})
	}
	cut := newCutter(t, root, e.seed, e.random, func(j cutJob) {
		select {
		case <-stop:
		case jobs <- j:
		}
	})
	cut.rec.Skip = e.skip
	var held []cutJob
	if e.oneProc {
		cut.opsOnly = true
		emit := cut.emit
		cut.emit = func(j cutJob) { held = append(held, j) }
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		defer func() { cut.emit = emit }()
	}
	err := cut.run(m, filepath.Join(root, "s"), e.mode, e.policy, e.steps)
	for _, j := range held {
		select {
		case <-stop:
		case jobs <- j:
		}
	}
	close(jobs)
	workers.Wait()
	if err != nil {
		violation("the workload itself: %v", err)
	}
	result.points = cut.points
	return result
}

type namedEnumeration struct {
	name string
	enumeration
}

func enumerations() []namedEnumeration {
	return []namedEnumeration{
		{"atomic, sync never", enumeration{mode: mmrun.Atomic, policy: mmrun.SyncNever,
			steps: atomicSteps()}},
		{"atomic, sync always", enumeration{mode: mmrun.Atomic, policy: mmrun.SyncAlways,
			steps: atomicSteps()}},
		{"atomic, sync every 1ms", enumeration{mode: mmrun.Atomic,
			policy: mmrun.SyncEvery(time.Millisecond), steps: smallSteps()}},
		{"continuous", enumeration{mode: mmrun.Continuous, policy: mmrun.SyncNever,
			steps: continuousSteps()}},
		{"continuous, sync always", enumeration{mode: mmrun.Continuous, policy: mmrun.SyncAlways,
			steps: continuousSteps()}},
		{"conversions", enumeration{mode: mmrun.Atomic, policy: mmrun.SyncNever,
			steps: conversionSteps()}},
		{"sync before the fold", enumeration{mode: mmrun.Atomic, policy: mmrun.SyncNever,
			steps: switchSteps(), oneProc: true}},
	}
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	random := 10
	if testing.Short() {
		random = 1
	}
	for _, e := range enumerations() {
		t.Run(e.name, func(t *testing.T) {
			start := time.Now()
			e.random, e.seed, e.deepEvery = random, 1, 50
			if e.oneProc {
				e.random = min(random, 4) // all images are held until the workload has ended
			}
			r := e.run(t)
			for _, v := range r.violations {
				t.Error(v)
			}
			t.Logf("%d instants, %d images opened, %d more cut during or after recovery, %d of "+
				"both refused as torn, %d violations, %.1fs",
				r.points, r.images, r.second, r.torn, len(r.violations), time.Since(start).
					Seconds())
		})
	}
}
