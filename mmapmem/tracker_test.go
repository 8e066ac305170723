package mmapmem

import (
	"bytes"
	"context"
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

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
)

// watched is a Private memory with a guest in it, and a copy of its bytes as of the last commit
// that is kept by comparing all of them.
type watched struct {
	t    *testing.T
	ctx  context.Context
	rand *rand.Rand
	file vfs.File
	m    *Memory
	mod  api.Module

	saved   []byte // as of the last commit
	seq     uint64
	pending []patch // committed, and not in the file yet

	source *os.File // what the kernel reads into the memory
	events []string // since the last commit or rollback

	commits, rollbacks, evictions, toFile, growths int
}

type patch struct {
	seq    uint64
	offset uint64
	data   []byte
}

const mostWasmPages = 48

func watch(t *testing.T, guest string, seed uint64, trackers ...NewTracker) *watched {
	w := &watched{t: t, ctx: context.Background(), rand: rand.New(rand.NewPCG(seed, 0))}
	dir := t.TempDir()
	w.file = scratch.File(t, dir, "memory")
	var err error
	if w.m, err = Open(w.file, Private, 1024, trackers...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.m.Close(); err != nil {
			t.Error(err)
		}
	})
	random := filepath.Join(dir, "random")
	content := make([]byte, 1<<20)
	for i := range content {
		content[i] = byte(w.rand.Uint32())
	}
	if err := os.WriteFile(random, content, 0o666); err != nil {
		t.Fatal(err)
	}
	if w.source, err = os.Open(random); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.source.Close() })

	rt := wazero.NewRuntime(w.ctx)
	t.Cleanup(func() { rt.Close(w.ctx) })
	wasi_snapshot_preview1.MustInstantiate(w.ctx, rt)
	ctx := experimental.WithMemoryAllocator(w.ctx, w.m)
	w.mod, err = rt.InstantiateWithConfig(ctx, guests.Load(t, guest),
		wazero.NewModuleConfig().WithStdin(w.source))
	if err != nil {
		t.Fatal(err)
	}
	w.saved = make([]byte, w.m.Size())
	return w
}

func (w *watched) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("commit %d, after %v: %s", w.seq, w.events, fmt.Sprintf(format, args...))
}

func (w *watched) call(name string, params ...uint64) uint64 {
	w.t.Helper()
	results, err := w.mod.ExportedFunction(name).Call(w.ctx, params...)
	if err != nil {
		w.fatalf("%s%d: %v", name, params, err)
	}
	if len(results) == 0 {
		return 0
	}
	return uint64(uint32(results[0]))
}

// span is a random part of the memory, small ones being more likely.
func (w *watched) span(most int) (at, n uint64) {
	most = min(most, int(w.m.Size())-1)
	n = 1 + w.rand.Uint64N(uint64(1+w.rand.IntN(most)))
	return w.rand.Uint64N(w.m.Size() - n + 1), n
}

// write changes the memory, as a guest, a host and a kernel do.
func (w *watched) write() {
	size := w.m.Size()
	kind := w.rand.IntN(12)
	w.events = append(w.events, fmt.Sprint(kind))
	if w.mod.ExportedFunction("read") != nil && kind < 6 { // the guest that reads
		at, n := w.span(50_000)
		at = max(at, 16) // the guest's own
		if _, err := w.source.Seek(w.rand.Int64N(1<<19), 0); err != nil {
			w.fatalf("%v", err)
		}
		if got := w.call("read", 0, at, min(n, size-at)); got != min(n, size-at) {
			w.fatalf("fd_read gave %d of %d bytes", int32(got), n)
		}
		return
	}
	switch kind {
	case 0:
		w.call("one", w.rand.Uint64N(size/8)*8, w.rand.Uint64())
	case 1:
		w.call("random", w.rand.Uint64(), w.rand.Uint64N(64))
	case 2:
		at, n := w.span(100_000)
		w.call("fill", at, n, w.rand.Uint64N(256))
	case 3:
		at, n := w.span(100_000)
		from := w.rand.Uint64N(size - n)
		w.call("copy", at, from, n)
	case 4:
		first := w.rand.Uint64N(size / PageSize)
		w.call("touch", first, 1, min(1+w.rand.Uint64N(50), size/PageSize-first), w.rand.Uint64())
	case 5:
		w.call("one", 64*8, w.rand.Uint64())
	case 6: // the host, on a thread that ends
		at, n := w.span(20_000)
		var done sync.WaitGroup
		done.Go(func() {
			runtime.LockOSThread() // and no UnlockOSThread
			for i := range n {
				w.m.Bytes()[at+i] += byte(i)
			}
		})
		done.Wait()
	case 7: // the kernel: pread(2)
		at, n := w.span(50_000)
		if _, err := w.source.ReadAt(w.m.Bytes()[at:at+n], w.rand.Int64N(1<<19)); err != nil {
			w.fatalf("%v", err)
		}
	case 8:
		at, n := w.span(3000)
		if !w.mod.Memory().Write(uint32(at), bytes.Repeat([]byte{byte(w.seq)}, int(n))) {
			w.fatalf("write outside")
		}
	case 9:
		if size < mostWasmPages*WasmPageSize && w.rand.IntN(3) == 0 {
			w.call("grow", 1+w.rand.Uint64N(6))
			w.growths++
			w.mod.Memory().WriteByte(w.mod.Memory().Size()-1, 1)
		}
	case 10: // what was there: changes nothing
		at, n := w.span(20_000)
		copy(w.m.Bytes()[at:at+n], bytes.Clone(w.m.Bytes()[at:at+n]))
	case 11: // zeros, which the file may have there
		at, n := w.span(20_000)
		clear(w.m.Bytes()[at : at+n])
	}
}

// changes holds Changes against a full comparison.
func (w *watched) changes() Pending {
	p, err := w.m.Changes()
	if err != nil {
		w.fatalf("%v", err)
	}
	ranges := p.Ranges()
	now := w.m.Bytes()
	w.saved = append(w.saved, make([]byte, len(now)-len(w.saved))...)
	for _, r := range ranges {
		if uint64(r.Offset)+uint64(r.Len) > uint64(len(now)) {
			w.fatalf("range %+v lies outside of %d bytes", r, len(now))
		}
		copy(w.saved[r.Offset:][:r.Len], now[r.Offset:])
	}
	w.same("a change is missing")
	return p
}

// same compares the whole memory with the copy.
func (w *watched) same(problem string) {
	w.t.Helper()
	now := w.m.Bytes()
	if bytes.Equal(now[:len(w.saved)], w.saved) && allZero(now[len(w.saved):]) {
		return
	}
	for p := 0; p < len(now); p += PageSize {
		got, want := now[p:p+PageSize], make([]byte, PageSize)
		if p < len(w.saved) {
			want = w.saved[p : p+PageSize]
		}
		if !bytes.Equal(got, want) {
			w.fatalf("%s in page %d, which is %v (tracker %s)", problem, p/PageSize,
				w.m.table.state(uint32(p/PageSize)), w.m.Tracker())
		}
	}
}

func allZero(b []byte) bool {
	return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

// commit ends an event as mmrun does: what has changed is in a record then. Pages that rest in the
// file are given back by that.
func (w *watched) commit() {
	pending := w.changes()
	w.seq++
	w.commits++
	for _, r := range pending.Ranges() {
		w.pending = append(w.pending,
			patch{w.seq, uint64(r.Offset), slices.Clone(w.m.Bytes()[r.Offset:][:r.Len])})
	}
	before := w.m.HeldPages()
	var err error
	if w.rand.IntN(40) == 0 { // or in the file
		w.toFile++
		w.checkpoint(w.seq)
		err = pending.KeepInFile(w.seq)
	} else {
		err = pending.Keep(w.seq, w.rand.IntN(2) == 0)
	}
	if err != nil {
		w.fatalf("%v", err)
	}
	w.evictions += max(0, before-w.m.HeldPages())
	w.same("Keep or KeepInFile has changed a byte")
	w.holds()
	w.events = w.events[:0]
}

// holds checks what the page table promises.
func (w *watched) holds() {
	w.t.Helper()
	table := &w.m.table
	if len(w.m.news) > 0 || table.copied > len(table.held) {
		w.fatalf("%d new pages, %d of %d pages are copied",
			len(w.m.news), table.copied, len(table.held))
	}
	held := 0
	for p, ref := range table.refs {
		switch {
		case ref == refNew:
			w.fatalf("page %d is still new", p)
		case ref.held():
			held++
			h := table.held[ref.index()]
			if int(h.page) != p {
				w.fatalf("the entry of page %d is that of page %d", p, h.page)
			}
			if !bytes.Equal(h.shadow[:], w.saved[p*PageSize:][:PageSize]) {
				w.fatalf("the shadow of page %d, which is %v, is not the last commit",
					p, table.state(uint32(p)))
			}
		}
	}
	if held != len(table.held) {
		w.fatalf("%d entries for %d held pages", len(table.held), held)
	}
}

func (w *watched) rollback() {
	if w.rand.IntN(2) == 0 { // a commit that failed after it had looked
		if _, err := w.m.Changes(); err != nil {
			w.fatalf("%v", err)
		}
	}
	if err := w.m.Rollback(uint64(len(w.saved))); err != nil {
		w.fatalf("%v", err)
	}
	w.rollbacks++
	w.same("a rollback has left something behind")
	w.holds()
	w.events = w.events[:0]
}

// checkpoint puts all that was committed up to a commit into the file.
func (w *watched) checkpoint(last uint64) {
	for len(w.pending) > 0 && w.pending[0].seq <= last {
		p := w.pending[0]
		w.pending = w.pending[1:]
		if _, err := w.file.WriteAt(p.data, int64(p.offset)); err != nil {
			w.fatalf("%v", err)
		}
	}
}

// evict lets the next commits give pages back, some each time.
func (w *watched) evict() {
	last := w.seq - min(w.seq, w.rand.Uint64N(20))
	w.checkpoint(last)
	w.m.InFile(last)
	w.m.policy.idle = w.rand.Uint64N(20)
	w.m.policy.batch = 1 + w.rand.IntN(2*w.m.HeldPages()+1)
}

// churn keeps Go's garbage collector busy until the test ends: it moves the fault counter, and the
// memory is none of its business.
func churn(t *testing.T) {
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		var keep [][]byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			keep = append(keep, make([]byte, 10_000))
			if len(keep) == 200 {
				keep = nil
				runtime.GC()
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		done.Wait()
	})
}

// Nothing that was written since the last commit is missing from Changes, whoever wrote it, and
// rollbacks and evictions leave no byte wrong, for each tracker.
func TestTrackersMissNothing(t *testing.T) {
	commits := 800
	if testing.Short() {
		commits = 200
	}
	for name, tracker := range trackersHere(t) {
		for _, guest := range []string{"stores", "readfd"} {
			for _, gc := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/gc=%t", name, guest, gc), func(t *testing.T) {
					seed := rand.Uint64()
					t.Logf("seed %d", seed)
					w := watch(t, guest, seed, tracker)
					if gc {
						churn(t)
					}
					w.run(commits)
				})
			}
		}
	}
}

func (w *watched) run(commits int) {
	guarded := false
	for w.commits < commits {
		// Long quiet times in between make pages idle, so that they are protected and evicted.
		writes := w.rand.IntN(4)
		if w.commits/50%2 == 1 {
			writes = 1
			w.mod.Memory().WriteUint64Le(4096, w.rand.Uint64())
		}
		for range writes {
			if w.commits/50%2 == 0 || w.rand.IntN(20) == 0 {
				w.write()
			}
		}
		switch k := w.rand.IntN(100); {
		case k < 12:
			w.rollback()
		case k < 16:
			w.commit()
			w.evict()
		default:
			w.commit()
		}
		guarded = guarded || w.m.table.copied < len(w.m.table.held)
	}
	w.t.Logf("%s: %d commits, %d of them to the file, %d rollbacks, %d pages evicted, "+
		"%d growths, guarded: %t",
		w.m.Tracker(), w.commits, w.toFile, w.rollbacks, w.evictions, w.growths, guarded)
	protects := w.m.Tracker() == "kernel" && !strings.Contains(w.t.Name(), "without_protection")
	if commits >= 800 && (w.rollbacks == 0 || w.evictions == 0 || w.growths == 0 || w.toFile == 0 ||
		guarded != protects) {
		w.t.Error("not everything has happened")
	}
}

// trackersHere are the trackers that this machine has.
func trackersHere(t *testing.T) map[string]NewTracker {
	here := map[string]NewTracker{"compare": Compare}
	m, err := Open(scratch.File(t, t.TempDir(), "memory"), Private, 1, Kernel)
	if err != nil {
		t.Log(err)
		return here
	}
	m.Close()
	here["kernel"] = Kernel
	here["kernel without protection"] = func(m *Memory) (Tracker, error) {
		tracker, err := Kernel(m)
		withoutProtection(tracker)
		return tracker, err
	}
	return here
}

// With the fault counter where it was, only copied pages are looked at: the kernel is not asked.
func TestNoFaultNoScan(t *testing.T) {
	w := watch(t, "stores", 1)
	counting := &countingTracker{Tracker: w.m.tracker}
	w.m.tracker = counting
	for i := range 200 {
		w.mod.Memory().WriteUint32Le(4096, uint32(i))
		w.seq++
		if err := w.changes().Keep(w.seq, false); err != nil {
			t.Fatal(err)
		}
	}
	if counting.named > 100 {
		t.Errorf("pages were named at %d of 200 commits", counting.named)
	}
}

type countingTracker struct {
	Tracker
	named int // times when it named anything
}

func (c *countingTracker) Changed(found func(first, end uint32)) error {
	named := 0
	err := c.Tracker.Changed(func(first, end uint32) { named = 1; found(first, end) })
	c.named += named
	return err
}

// What may only be done once, or only between Changes and the end of the event, is refused
// otherwise.
func TestPendingEndsOnce(t *testing.T) {
	w := watch(t, "stores", 1)
	pending := w.changes()
	if _, err := w.m.Changes(); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a second Changes: %v", err)
	}
	if err := pending.Keep(1, false); err != nil {
		t.Fatal(err)
	}
	for name, ended := range map[string]Pending{"kept": pending, "zero": {}} {
		if err := errors.Join(ended.Keep(2, false)); !errors.Is(err, errEnded) {
			t.Errorf("%s: Keep: %v", name, err)
		}
		if err := ended.KeepInFile(2); !errors.Is(err, errEnded) {
			t.Errorf("%s: KeepInFile: %v", name, err)
		}
		if ended.Ranges() != nil || ended.TooMany() {
			t.Errorf("%s: ranges %v", name, ended.Ranges())
		}
	}
	rolledBack := w.changes()
	if err := w.m.Rollback(w.m.Size()); err != nil {
		t.Fatal(err)
	}
	if err := rolledBack.Keep(2, false); !errors.Is(err, errEnded) {
		t.Errorf("rolled back: Keep: %v", err)
	}
}
