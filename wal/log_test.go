package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/vfs"
)

// logged is a commit as a test remembers it.
type logged struct {
	seq    uint64
	pages  uint32
	small  string
	ranges []loggedRange
}

type loggedRange struct {
	offset uint32
	data   string
}

func remember(c *Commit) logged {
	l := logged{seq: c.Seq, pages: c.WasmPages, small: string(c.Small)}
	for _, r := range c.Ranges {
		l.ranges = append(l.ranges, loggedRange{r.Offset,
			string(c.Memory[r.Offset : r.Offset+r.Len])})
	}
	return l
}

func readBack(r Record) logged {
	l := logged{seq: r.Seq, pages: r.WasmPages, small: string(r.Small)}
	for offset, data := range r.Ranges() {
		l.ranges = append(l.ranges, loggedRange{offset, string(data)})
	}
	return l
}

// recovered opens and replays without changing anything.
func recovered(t testing.TB, fsys vfs.FS, dir string, from uint64) ([]logged, Recovery, error) {
	t.Helper()
	l, err := Open(fsys, dir, MinSize)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got []logged
	rec, err := l.Replay(from, func(r Record) error {
		got = append(got, readBack(r))
		return nil
	})
	if len(got) != rec.Records || rec.LastSeq != from+uint64(len(got)) {
		t.Fatalf("%d records were given, the recovery says %+v", len(got), rec)
	}
	return got, rec, err
}

func text(seq uint64, s string) *Commit {
	return &Commit{Seq: seq, WasmPages: 1, Small: []byte(s)}
}

func randomCommit(r *rand.Rand, seq uint64, largest int) *Commit {
	c := &Commit{Seq: seq, WasmPages: r.Uint32N(65536), Memory: make([]byte, 1+r.IntN(largest)),
		Small: make([]byte, r.IntN(40))}
	for i := range c.Memory {
		c.Memory[i] = byte(r.Uint32())
	}
	for i := range c.Small {
		c.Small[i] = byte(r.Uint32())
	}
	for left := len(c.Memory); left > 0 && r.IntN(5) > 0; {
		n := r.IntN(left + 1)
		c.Ranges = append(c.Ranges, Range{uint32(r.IntN(len(c.Memory) - n + 1)), uint32(n)})
		left -= n
	}
	return c
}

func TestWhatIsAppendedIsReplayed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		base := rapid.Uint64Range(0, 1<<60).Draw(rt, "base")
		m := newMemFS()
		l := mustCreate(t, m, 1<<15, base)
		var want []logged
		for n := rapid.IntRange(0, 60).Draw(rt, "commits"); n > 0; n-- {
			c := randomCommit(r, l.LastSeq()+1, 2000)
			used, free := l.Used(), l.Free()
			err := l.Append(c)
			if errors.Is(err, ErrFull) {
				if RecordSize(c) <= free {
					rt.Fatalf("full with %d bytes free, %d needed", free, RecordSize(c))
				}
				if err := l.Switch(); errors.Is(err, ErrBusy) {
					break
				}
				used, err = 0, l.Append(c)
			}
			if err != nil {
				rt.Fatal(err)
			}
			if l.Used()-used != RecordSize(c) {
				rt.Fatalf("took %d bytes, RecordSize is %d", l.Used()-used, RecordSize(c))
			}
			want = append(want, remember(c))
		}
		l.Close()
		from := base + uint64(rapid.IntRange(0, len(want)).Draw(rt, "folded"))
		got, rec, err := recovered(t, m, "", from)
		if err != nil || rec.Torn {
			rt.Fatal(rec, err)
		}
		if want = want[from-base:]; len(want)+len(got) > 0 && !reflect.DeepEqual(got, want) {
			rt.Fatalf("got %v, want %v", got, want)
		}
	})
}

func TestFullSegmentStaysAsItWas(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	if err := l.Append(text(1, "one")); err != nil {
		t.Fatal(err)
	}
	before := string(m.files["wal.0"].data) + string(m.files["wal.1"].data)
	if err := l.Append(text(2, strings.Repeat("x", MinSize))); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if before != string(m.files["wal.0"].data)+string(m.files["wal.1"].data) {
		t.Error("a file has changed")
	}
	if l.LastSeq() != 1 {
		t.Errorf("last commit is %d", l.LastSeq())
	}
	if err := l.Append(text(2, "two")); err != nil {
		t.Error(err)
	}
}

func TestSegmentCanBeFilledToTheLastByte(t *testing.T) {
	for short := range 5 {
		m := newMemFS()
		l := mustCreate(t, m, MinSize, 0)
		c := text(1, strings.Repeat("x", int(l.Free())-recordHeaderSize-8*short))
		if err := l.Append(c); err != nil {
			t.Fatal(err)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if l.Free() != int64(8*short) {
			t.Errorf("%d bytes are free", l.Free())
		}
		if got, rec, err := recovered(t, m, "", 0); len(got) != 1 || rec.Torn || err != nil {
			t.Error(short, len(got), rec, err)
		}
	}
}

func TestWrongUseIsRefused(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 5)
	for _, c := range []*Commit{
		text(5, ""), text(7, ""), text(0, ""),
		{Seq: 6, Memory: make([]byte, 10), Ranges: []Range{{8, 3}}},
		{Seq: 6, Memory: make([]byte, 10), Ranges: []Range{{1<<32 - 1, 1<<32 - 1}}},
	} {
		if err := l.Append(c); err == nil {
			t.Errorf("commit %v was accepted", c)
		}
	}
	if l.Used() != 0 || l.LastSeq() != 5 {
		t.Error("a refused commit left something")
	}
	if _, err := l.Replay(0, nil); err == nil {
		t.Error("replay of a wal in use")
	}
	if err := l.Reserve(maxSize); err == nil {
		t.Error("a record that fits into no segment has been reserved")
	}
	l.Close()
	if err := l.Append(text(6, "")); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if err := l.Sync(); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	l, err := Open(m, "", MinSize)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Append(text(6, "")); !errors.Is(err, errNotReset) {
		t.Error(err)
	}
	if _, err := Open(newMemFS(), "", MinSize); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestAppendDoesNotAllocate(t *testing.T) {
	l, err := Create(vfs.OS, t.TempDir(), 1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Reserve(1 << 19); err != nil {
		t.Fatal(err)
	}
	c := onePage()
	if n := testing.AllocsPerRun(1000, func() {
		c.Seq++
		if err := l.Append(c); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if n := RecordSize(c); n >= 100 {
		t.Errorf("a change of 8 bytes and one global takes %d bytes", n)
	}
}

func TestSwitchReleaseAndReuseGoOnForThousandsOfLives(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	c := text(0, "some small state, and some more of it to fill the segment in fewer steps")
	folded := uint64(0)
	for life := range 3000 {
		for {
			c.Seq = l.LastSeq() + 1
			if err := l.Append(c); errors.Is(err, ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Switch(); err != nil {
			t.Fatal(err)
		}
		if life%100 == 0 {
			if err := l.Append(text(l.LastSeq()+1, "next")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := l.Switch(); !errors.Is(err, ErrBusy) {
					t.Fatal(err)
				}
			}
			got, rec, err := recovered(t, m.killed(), "", folded)
			if err != nil || rec.Torn || rec.LastSeq != l.LastSeq() {
				t.Fatalf("life %d: %d records, %+v, %v", life, len(got), rec, err)
			}
		}
		s := l.Sealed()
		if s.BaseSeq() != folded {
			t.Fatalf("sealed from %d, folded up to %d", s.BaseSeq(), folded)
		}
		if err := s.Replay(func(r Record) error {
			folded++
			if r.Seq != folded {
				return fmt.Errorf("record %d, want %d", r.Seq, folded)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if folded != s.LastSeq() {
			t.Fatalf("replayed up to %d, the last is %d", folded, s.LastSeq())
		}
		if err := s.Release(); err != nil {
			t.Fatal(err)
		}
		if s.Release() == nil || s.Sync() == nil || s.Replay(nil) == nil || l.Sealed() != nil {
			t.Fatal("a released segment can still be used")
		}
	}
}

func TestSwitchOfAnEmptySegmentDoesNothing(t *testing.T) {
	l := mustCreate(t, newMemFS(), MinSize, 0)
	if err := l.Switch(); err != nil || l.Sealed() != nil {
		t.Error(err, l.Sealed())
	}
}

func TestReserveMakesRoomForOneLargeCommit(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(vfs.OS, dir, MinSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	large := text(2, strings.Repeat("large", 50_000))
	if err := l.Append(text(1, "small")); err != nil {
		t.Fatal(err)
	}
	if err := l.Reserve(RecordSize(large)); !errors.Is(err, ErrBusy) {
		t.Fatal(err)
	}
	if err := l.Switch(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(large); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	if err := l.Reserve(RecordSize(large)); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(large); err != nil {
		t.Fatal(err)
	}
	got, rec, err := recovered(t, vfs.OS, dir, 0)
	if err != nil || rec.Torn || len(got) != 2 || got[1].small != string(large.Small) {
		t.Fatal(len(got), rec, err)
	}
	if err := l.Sealed().Release(); err != nil {
		t.Fatal(err)
	}
	if err := l.Switch(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(text(3, "small again")); err != nil {
		t.Fatal(err)
	}
	if err := l.Sealed().Release(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/wal.0", "/wal.1"} {
		if fi, err := os.Stat(dir + name); err != nil || fi.Size() != MinSize {
			t.Errorf("%s has %d bytes after the release, %v", name, fi.Size(), err)
		}
	}
	if got, rec, err := recovered(t, vfs.OS, dir, 2); err != nil || rec.Torn || len(got) != 1 {
		t.Error(got, rec, err)
	}
}

func TestReserveWithoutDiskSpaceLeavesTheWALInUse(t *testing.T) {
	for _, failing := range []string{"allocate", "map"} {
		m := newMemFS()
		l := mustCreate(t, m, MinSize, 0)
		m.before = func(op string, f *memFile) error {
			if op == failing {
				m.before = nil
				return syscall.ENOSPC
			}
			return nil
		}
		if err := l.Reserve(100_000); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err := l.Append(text(1, "one")); err != nil {
			t.Errorf("after a failed %s: %v", failing, err)
		}
	}
}

func TestResetGivesSegmentsTheirSize(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, MinSize, 20001, 1 << 17} {
		m := newMemFS()
		l := mustCreate(t, m, 1<<15, 0)
		l.Close()
		m.put("wal.1", make([]byte, size))
		l, err := Open(m, "", 1<<15)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Replay(0, nil); !errors.Is(err, ErrCorrupt) {
			t.Errorf("zeros in place of a header: %v", err)
		}
		if err := l.Reset(9); err != nil {
			t.Fatal(err)
		}
		l.Append(text(10, "ten"))
		l.Switch()
		if err := l.Append(text(11, strings.Repeat("x", 20000))); err != nil {
			t.Error(size, err)
		}
		if got, rec, err := recovered(t, m, "", 9); err != nil || rec.Torn || len(got) != 2 {
			t.Error(size, got, rec, err)
		}
	}
}

func TestFailedSyncIsRememberedForEver(t *testing.T) {
	for name, do := range map[string]func(*Log) error{
		"Sync":        (*Log).Sync,
		"Sealed.Sync": func(l *Log) error { return l.Sealed().Sync() },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemFS()
			l := mustCreate(t, m, MinSize, 0)
			for _, err := range []error{l.Append(text(1, "one")), l.Switch(),
				l.Append(text(2, "two"))} {
				if err != nil {
					t.Fatal(err)
				}
			}
			sealed := l.Sealed()
			m.before = func(op string, f *memFile) error {
				if op == "sync" {
					m.before = nil // the next one would succeed
					return syscall.EIO
				}
				return nil
			}
			for range 2 {
				if err := do(l); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
					t.Error(err)
				}
			}
			for name, err := range map[string]error{
				"Append": l.Append(text(3,
					"three")), "Sync": l.Sync(), "Switch": l.Switch(), "Reserve": l.Reserve(1),
				"Reset": l.Reset(9), "Sealed.Sync": sealed.Sync(),
				"Sealed.Release": sealed.Release(),
			} {
				if !errors.Is(err, ErrFailed) {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestSyncMakesNoSystemCallWhenThereIsNothingNew(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	var synced []string
	m.before = func(op string, f *memFile) error {
		if op == "sync" {
			synced = append(synced, f.name)
		}
		return nil
	}
	step := func(want ...string) {
		t.Helper()
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(synced, want) {
			t.Errorf("synced %v, want %v", synced, want)
		}
		synced = nil
	}
	step()
	l.Append(text(1, "one"))
	step("wal.0")
	step()
	l.Append(text(2, "two"))
	l.Switch()
	l.Append(text(3, "three"))
	step("wal.0", "wal.1") // the older one first
	step()
	l.Append(text(4, "four"))
	step("wal.1")
}

// TestAppendSyncAndFoldRunAtTheSameTime is for the race detector.
func TestAppendSyncAndFoldRunAtTheSameTime(t *testing.T) {
	dir := t.TempDir()
	l, err := Create(vfs.OS, dir, 1<<15, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if err := l.Sync(); err != nil {
				t.Error(err)
			}
		}
	})
	sealed := make(chan struct{}, 1)
	folded := uint64(0)
	wg.Go(func() {
		for range sealed {
			s := l.Sealed()
			if err := s.Sync(); err != nil {
				t.Error(err)
			}
			if err := s.Replay(func(r Record) error {
				folded++
				if r.Seq != folded || string(r.Small) != fmt.Sprint(folded) {
					return fmt.Errorf("record %d %q, want %d", r.Seq, r.Small, folded)
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if err := s.Release(); err != nil {
				t.Error(err)
			}
		}
	})
	for seq := uint64(1); seq < 20_000; {
		c := text(seq, fmt.Sprint(seq))
		switch err := l.Append(c); {
		case err == nil:
			seq++
		case errors.Is(err, ErrFull):
			switch err := l.Switch(); {
			case err == nil && seq%5 == 0:
				if err := l.Reserve(1 << 16); err != nil {
					t.Fatal(err)
				}
				fallthrough
			case err == nil:
				sealed <- struct{}{}
			case !errors.Is(err, ErrBusy):
				t.Fatal(err)
			}
		default:
			t.Fatal(err)
		}
	}
	stop.Store(true)
	close(sealed)
	wg.Wait()
	if _, rec, err := recovered(t, vfs.OS, dir, folded); err != nil || rec.Torn ||
		rec.LastSeq != l.LastSeq() {
		t.Error(rec, err)
	}
}
