package tests

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"pgregory.net/rapid"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/testkit/crash"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// tester is what *testing.T and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// pair is a state and the twin that never persisted anything.
type pair struct {
	t       tester
	cache   wazero.CompilationCache
	scratch string
	dirs    int
	options []mmrun.Option

	workload *crash.Workload
	rt       wazero.Runtime // of the instance
	in       *mmrun.Instance
	twinRT   wazero.Runtime
	twin     *crash.Twin
	done     tally
}

// tally counts what was done to pairs.
type tally struct{ sequences, events, views, openings int }

func (n *tally) add(m tally) {
	n.sequences += m.sequences
	n.events += m.events
	n.views += m.views
	n.openings += m.openings
}

func newPair(t tester, cache wazero.CompilationCache, scratch string, w *crash.Workload,
	mode mmrun.Mode, options ...mmrun.Option) *pair {
	t.Helper()
	p := &pair{t: t, cache: cache, scratch: scratch, workload: w,
		options: append(options, mmrun.WithModuleConfig(crash.ModuleConfig()))}
	var err error
	if p.twinRT, err = crash.NewRuntime(ctx, cache); err == nil {
		p.twin, err = crash.NewTwin(ctx, p.twinRT, w)
	}
	p.check(err)
	p.open(p.dir(), p.workload.Wasm, mmrun.WithMode(mode))
	return p
}

// diskCache is a compilation cache for all runtimes of a test.
func diskCache(t testing.TB) wazero.CompilationCache {
	dir, err := compiledDir()
	if err != nil {
		t.Fatal(err)
	}
	cache, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close(ctx) })
	return cache
}

func (p *pair) check(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("%v", err)
	}
}

func (p *pair) dir() string { return filepath.Join(p.scratch, fmt.Sprintf("state-%d", p.dirs)) }

func (p *pair) open(dir string, wasm []byte, options ...mmrun.Option) {
	p.t.Helper()
	var err error
	p.rt, err = crash.NewRuntime(ctx, p.cache)
	p.check(err)
	p.in, err = mmrun.Open(ctx, p.rt, dir, wasm, append(slices.Clone(p.options), options...)...)
	p.check(err)
	p.done.openings++
	if p.in.Seq() != p.twin.Seq {
		p.t.Fatalf("opened at commit %d, want %d", p.in.Seq(), p.twin.Seq)
	}
}

func (p *pair) close() {
	p.t.Helper()
	p.check(errors.Join(p.in.Close(ctx), p.rt.Close(ctx)))
}

// end closes all, and holds the twin against the module as it was before it was rewritten.
func (p *pair) end() {
	p.t.Helper()
	p.close()
	p.check(p.twin.CheckOriginal(ctx))
	p.check(errors.Join(p.twinRT.Close(ctx), os.RemoveAll(p.dir())))
}

// event does e on both sides.
func (p *pair) event(e crash.Event, byCall bool) {
	p.t.Helper()
	p.done.events++
	want, commits, err := p.twin.Apply(ctx, e)
	p.check(err)
	got, err := crash.Do(ctx, p.in, e, byCall)
	switch {
	case (err == nil) != commits:
		p.t.Fatalf("%v: ended with %v", e, err)
	case commits && got != want:
		p.t.Fatalf("%v: the answers differ", e)
	case p.in.Seq() != p.twin.Seq:
		p.t.Fatalf("%v: is commit %d, want %d", e, p.in.Seq(), p.twin.Seq)
	}
}

// view does e as a query, whether it fails or not. Nothing may come of it.
func (p *pair) view(e crash.Event) {
	p.t.Helper()
	p.done.views++
	err := crash.View(ctx, p.in, e)
	if failed := err != nil; failed != (e.End != crash.Commits) && e.End != crash.MayTrap {
		p.t.Fatalf("view of %v: ended with %v", e, err)
	}
	if p.in.Seq() != p.twin.Seq {
		p.t.Fatalf("view of %v: is commit %d, want %d still", e, p.in.Seq(), p.twin.Seq)
	}
}

// look compares the whole state. In continuous mode that takes an event.
func (p *pair) look() {
	p.t.Helper()
	p.check(crash.Compare(ctx, p.in, p.twin))
	if p.in.Mode() == mmrun.Continuous {
		_, _, err := p.twin.Apply(ctx, crash.Event{})
		p.check(err)
	}
}

// kill goes on with what a kill at this moment would leave.
func (p *pair) kill() {
	p.t.Helper()
	old := p.dir()
	p.dirs++
	p.check(copyAtRest(p.dir(), old))
	p.close()
	p.check(os.RemoveAll(old))
	p.open(p.dir(), nil)
}

// copyAtRest copies a state that is open, between two events. A checkpoint may run in the
// background and change one file after another was copied; two copies that are equal are one of a
// single moment.
func copyAtRest(to, from string) error {
	if err := crash.CopyFiles(to, from); err != nil {
		return err
	}
	for range 100 {
		again := to + ".again"
		if err := crash.CopyFiles(again, from); err != nil {
			return err
		}
		same, err := sameFiles(to, again)
		if err != nil {
			return err
		}
		if err := os.RemoveAll(to); err != nil {
			return err
		}
		if err := os.Rename(again, to); err != nil {
			return err
		}
		if same {
			return statedir.Adopt(to, statedir.Boot())
		}
	}
	return fmt.Errorf("%s keeps changing between two events", from)
}

func sameFiles(a, b string) (bool, error) {
	entriesA, err := os.ReadDir(a)
	if err != nil {
		return false, err
	}
	entriesB, err := os.ReadDir(b)
	if err != nil || len(entriesA) != len(entriesB) {
		return false, err
	}
	for i, e := range entriesA {
		if e.Name() != entriesB[i].Name() {
			return false, nil
		}
		contentA, err := os.ReadFile(filepath.Join(a, e.Name()))
		if err != nil {
			return false, err
		}
		contentB, err := os.ReadFile(filepath.Join(b, e.Name()))
		if err != nil || string(contentA) != string(contentB) {
			return false, err
		}
	}
	return true, nil
}

// Whatever is done to a state, in whatever order, it answers as its twin does and is equal to it.
func TestAnySequenceEqualsTheTwin(t *testing.T) {
	cache := diskCache(t)
	for _, guest := range []string{"counter", "cmap", "btree", "rust_kv", "stores", "types", "swap",
		"exit", "hostmut"} {
		t.Run(guest, func(t *testing.T) {
			t.Parallel()
			wasm := guests.Load(t, guest)
			scratch := scratch.Dir(t)
			var done tally
			rapid.Check(t, func(t *rapid.T) {
				done.add(anySequence(t, cache, scratch, guest,
					wasm))
			})
			t.Logf("%d sequences: %d events, %d queries, %d openings", done.sequences, done.events,
				done.views, done.openings)
		})
	}
}

func anySequence(t *rapid.T, cache wazero.CompilationCache, scratch, guest string,
	wasm []byte) tally {
	scratch, err := os.MkdirTemp(scratch, "")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(scratch)
	mode := rapid.SampledFrom([]mmrun.Mode{mmrun.Atomic, mmrun.Atomic, mmrun.Atomic,
		mmrun.Continuous}).Draw(t, "mode")
	wal := rapid.SampledFrom([]int64{mmrun.MinWALSize, 1 << 20}).Draw(t, "wal size")
	sync := rapid.SampledFrom([]mmrun.SyncPolicy{mmrun.SyncNever, mmrun.SyncAlways}).Draw(t, "sync")
	w := &crash.Workload{Guest: guest, Wasm: wasm, OnlyCommits: mode == mmrun.Continuous}
	p := newPair(t, cache, scratch, w, mode, mmrun.WithWALSize(wal), mmrun.WithSync(sync))
	event := func(t *rapid.T) crash.Event {
		e := p.twin.Event(rapid.Uint64Range(0, 1<<20).Draw(t, "number"))
		t.Log(e)
		return e
	}
	t.Repeat(map[string]func(*rapid.T){
		"event": func(t *rapid.T) {
			p.t = t
			p.event(event(t), rapid.Bool().Draw(t, "by call"))
		},
		"events": func(t *rapid.T) { // enough for pages to become idle, and for wals to fill
			p.t = t
			first := rapid.Uint64Range(0, 1<<20).Draw(t, "first number")
			for i := range rapid.Uint64Range(2, 60).Draw(t, "count") {
				p.event(p.twin.Event(first+i), false)
			}
		},
		"the same again": func(t *rapid.T) {
			p.t = t
			n := rapid.Uint64Range(0, 1<<20).Draw(t, "number")
			if p.twin.Event(n).End == crash.MayTrap {
				t.Skip("the twin does all over again for each that traps")
			}
			// more than a page must be idle to be evicted
			for range rapid.IntRange(40, 80).Draw(t, "count") {
				p.event(p.twin.Event(n), true)
			}
		},
		"view": func(t *rapid.T) {
			p.t = t
			if p.in.Mode() == mmrun.Continuous {
				t.Skip("there is no rollback")
			}
			p.view(event(t))
		},
		"meta": func(t *rapid.T) {
			p.t = t
			meta := make([]byte, rapid.SampledFrom([]int{0, 1, 100, 5000, 70_000}).Draw(t,
				"length"))
			for i := range meta {
				meta[i] = byte(i * len(meta))
			}
			end := rapid.SampledFrom([]crash.End{crash.Commits, crash.Refused,
				crash.Panics}).Draw(t, "end")
			if w.OnlyCommits {
				end = crash.Commits
			}
			p.event(crash.Event{Meta: meta, End: end}, false)
		},
		"nothing": func(t *rapid.T) {
			p.t = t
			p.event(crash.Event{}, false)
		},
		"look": func(t *rapid.T) {
			p.t = t
			p.look()
		},
		"checkpoint": func(t *rapid.T) {
			p.t = t
			p.check(p.in.Checkpoint(bg))
		},
		"sync": func(t *rapid.T) {
			p.t = t
			p.check(p.in.Sync(bg))
		},
		"close and open": func(t *rapid.T) {
			p.t = t
			p.close()
			mode := rapid.SampledFrom([]mmrun.Mode{p.in.Mode(), p.in.Mode(), mmrun.Atomic,
				mmrun.Continuous}).Draw(t, "mode")
			wasm := p.workload.Wasm
			if rapid.Bool().Draw(t, "from itself") {
				wasm = nil
			}
			p.open(p.dir(), wasm, mmrun.WithMode(mode))
			w.OnlyCommits = mode == mmrun.Continuous
		},
		"kill": func(t *rapid.T) {
			p.t = t
			p.kill()
		},
	})
	p.t = t
	p.look()
	p.kill()
	p.look()
	p.end()
	p.done.sequences = 1
	return p.done
}

// big is a pair over the guest that writes raw pages, with a memory of so many wasm pages.
func big(t *testing.T, wasmPages uint64, wal int64) *pair {
	w := &crash.Workload{Guest: "stores", Wasm: guests.Load(t, "stores")}
	p := newPair(t, diskCache(t), scratch.Dir(t), w, mmrun.Atomic, mmrun.WithWALSize(wal))
	p.event(one("grow", wasmPages-1), true)
	return p
}

func one(name string, params ...uint64) crash.Event {
	return crash.Event{Steps: []crash.Step{{Func: name, Params: params}}}
}

func refused(e crash.Event) crash.Event {
	e.End = crash.Refused
	return e
}

// exercise does small events around big ones, rolled back ones and queries, and survives a kill
// after each.
func exercise(t *testing.T, p *pair, big crash.Event) {
	for i := range uint64(3) {
		for n := range uint64(100) {
			p.event(one("one", (i*64+n%8)*4096, n), true)
		}
		p.event(refused(big), false)
		p.view(big)
		p.look()
		p.event(big, true)
		p.event(one("one", 8, i), true)
		p.event(one("random", i, 1000), true)
		p.look()
		p.kill()
		p.look()
	}
	p.end()
	t.Logf("%d events, %d queries, %d openings", p.done.events, p.done.views, p.done.openings)
}

// A record that is larger than a segment of the wal gets one grown for it.
func TestEventLargerThanASegment(t *testing.T) {
	p := big(t, 80, mmrun.MinWALSize)
	exercise(t, p, one("random", 7, 20_000))
}

// An event with more new pages than may get shadows is folded into the file at once, and its pages
// stay out of the process's own memory.
func TestEventOfManyPages(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 40 MiB a few times")
	}
	const pages = 10_000 // of 4 KiB
	p := big(t, 700, mmrun.DefaultWALSize)
	event := one("touch", 500, 1, pages, 42)
	p.event(event, true)
	if got := p.in.Stats().PrivatePages; got > 1000 {
		t.Errorf("%d pages are private after an event that wrote %d, want few", got, pages)
	}
	p.look()
	exercise(t, p, event)
}

// An event may fill what would not fit into the wal at all.
func TestEventFillsWholeMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 20 MiB a few times")
	}
	const bytes = 20 << 20
	p := big(t, bytes>>16, mmrun.MinWALSize)
	p.event(one("fill", 0, bytes, 1), true)
	p.look()
	exercise(t, p, one("copy", 4096, 0, bytes-4096))
}
