//go:build linux

package ratios

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// one turns an event function into an op: one(8, v) with a v that changes.
func one(name string, event func([]uint64) error) *op {
	stack := make([]uint64, 2)
	v := uint64(0)
	return &op{name: name, warm: 2, run: func() error {
		v++
		stack[0], stack[1] = 8, v
		return event(stack)
	}}
}

// fill is one, with an event that writes all bytes of the page.
func fill(name string, event func([]uint64) error) *op {
	stack := make([]uint64, 3)
	v := uint64(0)
	return &op{name: name, warm: 2, run: func() error {
		v++
		stack[0], stack[1], stack[2] = 0, lab.PageSize, v&0xff
		return event(stack)
	}}
}

// contestants closes what a section has opened.
type contestants []lab.Contestant

func (c *contestants) add(x lab.Contestant, err error, mib int, touched bool) error {
	if err != nil {
		return err
	}
	*c = append(*c, x)
	return lab.Prepare(x, mib, touched)
}

func (c contestants) close() {
	for _, x := range c {
		_ = x.Close()
	}
}

func (r *run) plain(all *contestants, mib int) (*lab.Plain, error) {
	p, err := lab.NewPlain(r.wasm, "")
	return p, all.add(p, err, mib, true)
}

func (r *run) state(all *contestants, name string, mib int, touched bool,
	opts ...mmrun.Option) (*lab.State, error) {
	s, err := lab.NewState(r.wasm, r.path(name), opts...)
	return s, all.add(s, err, mib, touched)
}

func (r *run) snapshot(all *contestants, mib int) (*lab.Snapshot, error) {
	s, err := lab.NewSnapshot(r.wasm, r.dir, "")
	return s, all.add(s, err, mib, true)
}

// oneEvent: one page and one global in an event, without syncs.
func oneEvent(r *run) error {
	bare, err := lab.NewBare(r.path("bare"), 8*lab.MiB)
	if err != nil {
		return err
	}
	defer bare.Close()
	pwrite := &op{name: "bare pwrite of 4 KiB", run: bare.Pwrite}

	ops := []*op{pwrite}
	plain, plainCall := map[int]*op{}, map[int]*op{}
	continuous, continuousCall := map[int]*op{}, map[int]*op{}
	atomic, atomicCall, untouched := map[int]*op{}, map[int]*op{}, map[int]*op{}
	snapshot := map[int]*op{}
	states := map[int]*lab.State{}

	sizes := []int{1, 16, 64, 256, 1024}
	var all contestants
	defer func() { all.close() }()
	for _, mib := range sizes {
		at := fmt.Sprintf(", %d MiB", mib)
		s, err := r.state(&all, fmt.Sprint("atomic", mib), mib, true)
		if err != nil {
			return err
		}
		states[mib] = s
		atomic[mib], atomicCall[mib] = one("atomic, Update"+at,
			s.Event("one")), one("atomic, Call"+at, s.CallEvent("one"))
		u, err := r.state(&all, fmt.Sprint("untouched", mib), mib, false)
		if err != nil {
			return err
		}
		untouched[mib] = one("atomic, Update, untouched"+at, u.Event("one"))
		ops = append(ops, atomic[mib], atomicCall[mib], untouched[mib])
		if mib > 256 {
			continue
		}
		p, err := r.plain(&all, mib)
		if err != nil {
			return err
		}
		plain[mib], plainCall[mib] = one("plain wazero, CallWithStack"+at,
			p.Event("one")), one("plain wazero, Call"+at, p.CallEvent("one"))
		c, err := r.state(&all, fmt.Sprint("continuous", mib), mib, true,
			mmrun.WithMode(mmrun.Continuous))
		if err != nil {
			return err
		}
		continuous[mib], continuousCall[mib] = one("continuous, Update"+at,
			c.Event("one")), one("continuous, Call"+at, c.CallEvent("one"))
		ops = append(ops, plain[mib], plainCall[mib], continuous[mib], continuousCall[mib])
	}
	// The whole page instead of 8 bytes of it: what an event costs beyond a call is the same.
	fillPlain := fill("plain wazero, CallWithStack, fills a page, 1 MiB",
		all[2].(*lab.Plain).Event("fill"))
	fillKept := fill("continuous, Update, fills a page, 1 MiB", all[3].(*lab.State).Event("fill"))
	ops = append(ops, fillPlain, fillKept)
	if err := takeTurns(thread, r.rounds, ops...); err != nil {
		return err
	}
	// Snapshots of large memories disturb everything else, so they run by themselves.
	for _, mib := range sizes[:4] {
		s, err := r.snapshot(&all, mib)
		if err != nil {
			return err
		}
		snapshot[mib] = one(fmt.Sprintf("copy-based snapshot, %d MiB", mib), s.Event("one"))
		snapshot[mib].n, snapshot[mib].warm = 1, 1
		if err := takeTurns(thread, min(r.rounds, 11), snapshot[mib]); err != nil {
			return err
		}
		ops = append(ops, snapshot[mib])
	}
	r.note(ops...)

	for _, mib := range sizes[:4] {
		r.figure(fmt.Sprintf("continuous, Update / plain CallWithStack, one store, %d MiB", mib),
			"%.2f x", continuous[mib].median()/plain[mib].median())
		r.atMost(fmt.Sprintf("continuous, Call / plain Call, one page, %d MiB", mib),
			continuousCall[mib].median()/plainCall[mib].median(), 1.5, "x")
	}
	r.atMost("continuous, Update / plain CallWithStack, fills a page, 1 MiB",
		fillKept.median()/fillPlain.median(), 1.5, "x")
	r.atMost("atomic, one hot page and a global / bare pwrite of 4 KiB, 1 MiB",
		atomic[1].median()/pwrite.median(), 0.5, "x")
	r.atMost("the same, 1024 MiB", atomic[1024].median()/pwrite.median(), 0.5, "x")
	r.atMost("atomic, one hot page: 1024 MiB / 1 MiB of memory, touched",
		atomic[1024].median()/atomic[1].median(), 1.3, "x")
	r.atMost("the same, untouched", untouched[1024].median()/untouched[1].median(), 1.3, "x")
	r.atLeast("copy-based snapshot / atomic, one page, 64 MiB",
		snapshot[64].median()/atomic[64].median(), 10000, "x")

	s := states[64]
	before := s.Stats()
	allocs := testing.AllocsPerRun(10000, func() { err = atomic[64].run() })
	if err != nil {
		return err
	}
	after := s.Stats()
	r.atMost("atomic, Update: allocations of an event", allocs, 0, "")
	r.atMost("wal bytes of a one-page event",
		float64(after.WALBytes-before.WALBytes)/float64(after.Commits-before.Commits), 256, " B")
	return nil
}

// random turns an event function into an op: n stores in uniformly random pages.
func random(name string, event func([]uint64) error, n int) *op {
	stack := make([]uint64, 2)
	rng := rand.New(rand.NewPCG(3, 4))
	return &op{name: name, run: func() error {
		stack[0], stack[1] = rng.Uint64(), uint64(n)
		return event(stack)
	}}
}

// randomPages: eight random pages in an event, and the parts that it is made of.
func randomPages(r *run) error {
	const mib, pages = 64, 8
	var all contestants
	defer func() { all.close() }()
	s, err := r.state(&all, "state", mib, true)
	if err != nil {
		return err
	}
	snap, err := r.snapshot(&all, mib)
	if err != nil {
		return err
	}
	parts, err := lab.NewParts(r.path("parts"), mib)
	if err != nil {
		return err
	}
	defer parts.Close()

	// An event costs more or less with the number of hot pages, which rises until a checkpoint
	// and falls after it. So a batch is long, and its mean counts.
	// And its checkpoints run in the background, so the time of the whole process counts.
	event := random("atomic, 8 random pages, 64 MiB touched, checkpoints included",
		s.Event("random"), pages)
	event.n, event.clock = 2000, process
	waited := random("the same, as the caller sees it", s.Event("random"), pages)
	waited.n, waited.clock = 2000, wall
	hot, batches := 0.0, 0.0
	event.after = func(int) error { hot += float64(s.Stats().ComparedPages); batches++; return nil }
	snapshot := random("copy-based snapshot, 8 random pages, 64 MiB", snap.Event("random"), pages)
	snapshot.n = 1

	const batch = 256
	drop := func(n int) error { return parts.Drop(batch * n) }
	perPage := func(f func(int) error) func() error { return func() error { return f(batch) } }
	fault := &op{name: "copy-on-write fault (page not mapped before)", n: 1,
		run: perPage(parts.Fault), after: drop}
	mapped := &op{name: "copy-on-write fault (page mapped for reading before)", n: 1,
		run: perPage(parts.Fault), after: drop,
		before: func(int) error { return parts.Map() }}
	madvise := &op{name: "madvise(MADV_DONTNEED) of one page", n: 1, run: perPage(parts.Drop),
		before: func(int) error { return parts.Fault(batch) }}
	scan := &op{name: "PAGEMAP_SCAN of 64 MiB, all mapped, 8 pages private", run: parts.Scan,
		before: func(int) error {
			if err := parts.Map(); err != nil {
				return err
			}
			return parts.Fault(pages)
		},
		after: func(int) error { return parts.Drop(pages) }}
	compare := &op{name: "comparison of 4 KiB", run: parts.Compare}
	shadow := &op{name: "copy of 4 KiB", run: parts.Copy}
	fold := &op{name: "fold of one page: pread, CRC-32C, pwrite", run: parts.Fold}
	faults := &op{name: "getrusage", run: parts.Faults}

	for range 3 { // to the steady state
		if _, err := event.batch(); err != nil {
			return err
		}
	}
	if err := takeTurns(thread, max(r.rounds/5, 5), event, waited, snapshot, fault, mapped, madvise,
		scan, compare, shadow, fold, faults); err != nil {
		return err
	}
	for _, o := range []*op{fault, mapped, madvise} {
		for i := range o.samples {
			o.samples[i] /= batch
		}
	}
	r.note(event, waited, snapshot, fault, mapped, madvise, scan, compare, shadow, fold, faults)
	r.figure("hot pages at the ends of batches, on average", "%.0f", hot/batches)

	sum := pages*(fault.median()+compare.median()+madvise.median()+fold.median()) + scan.median()
	r.figure("sum of parts: 8 faults, 1 scan, 8 comparisons, 8 evictions (madvise, fold)", "%s",
		duration(sum))
	withHot := sum + (hot/batches)*compare.median() + pages*shadow.median() + 2*faults.median()
	r.figure("the same with all hot pages compared, 8 shadows and 2 getrusage", "%s",
		duration(withHot))
	r.atLeast("copy-based snapshot / atomic, 8 random pages, 64 MiB touched",
		snapshot.median()/event.median(), 100, "x")
	r.atMost("atomic, 8 random pages / sum of its parts", event.median()/sum, 1.5, "x")
	return nil
}

// syncRate: each event is durable, against the least that can do that.
func syncRate(r *run) error {
	var all contestants
	defer func() { all.close() }()
	bare, err := lab.NewBare(r.path("bare"), 8*lab.MiB)
	if err != nil {
		return err
	}
	defer bare.Close()
	least := &op{name: "bare pwrite of 4 KiB and fdatasync", n: 1, run: bare.PwriteSync}
	ops := []*op{least}
	events := map[int]*op{}
	for _, mib := range []int{1, 64} {
		s, err := r.state(&all, fmt.Sprint("state", mib), mib, true,
			mmrun.WithSync(mmrun.SyncAlways))
		if err != nil {
			return err
		}
		events[mib] = one(fmt.Sprintf("atomic, SyncAlways, %d MiB touched", mib), s.Event("one"))
		// The contestant before has moved the process's fault counter; a run of events does not.
		events[mib].n, events[mib].warm = 1, 1
		ops = append(ops, events[mib])
	}
	if err := takeTurns(wall, r.rounds*10, ops...); err != nil {
		return err
	}
	r.note(ops...)
	for _, mib := range []int{1, 64} {
		r.atLeast(fmt.Sprintf("rate of SyncAlways events, %d MiB touched / rate of pwrite and "+
			"fdatasync, on %s", mib, FileSystem(r.dir)),
			least.median()/events[mib].median(), 0.9, "x")
	}
	return nil
}
