package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/vfs/faultfs"
)

// model is what a caller of the wal knows: what it has appended, what it was told to be
// durable, and what it has folded into durable files of its own.
type model struct {
	t       *rapid.T
	r       *rand.Rand
	m       *memFS
	l       *Log
	commits []logged // commits[i] has sequence number i+1
	durable uint64   // Sync has returned for all up to this one
	folded  uint64
}

var kills, cuts atomic.Int64

// crash kills the process here and cuts the power here, and looks at what is found then.
func (d *model) crash() {
	kills.Add(1)
	last, torn := d.found(d.m.killed())
	if last != uint64(len(d.commits)) || torn {
		d.t.Fatalf("after a kill: commit %d of %d, torn: %v", last, len(d.commits), torn)
	}
	cuts.Add(1)
	last, _ = d.found(d.m.cut(d.r))
	if last < d.durable {
		d.t.Fatalf("after a power cut: commit %d, %d had been synced", last, d.durable)
	}
}

// found recovers from a disk and checks that what is found is a prefix of what was appended.
func (d *model) found(m *memFS) (last uint64, torn bool) {
	l, err := Open(m, "", d.l.Size())
	if err != nil {
		d.t.Fatal(err)
	}
	rec, err := l.Replay(d.folded, func(r Record) error {
		if r.Seq > uint64(len(d.commits)) {
			return fmt.Errorf("commit %d was never appended", r.Seq)
		}
		if got, want := readBack(r), d.commits[r.Seq-1]; !reflect.DeepEqual(got, want) {
			return fmt.Errorf("commit %d is %v, want %v", r.Seq, got, want)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return rec.LastSeq, rec.Torn
}

func (d *model) append(reserve bool) {
	largest := 500
	if reserve {
		largest = 20_000
	}
	c := randomCommit(d.r, uint64(len(d.commits)+1), largest)
	if reserve {
		if err := d.l.Switch(); errors.Is(err, ErrBusy) {
			return
		}
		if err := d.l.Reserve(RecordSize(c)); err != nil {
			d.t.Fatal(err)
		}
	}
	err := d.l.Append(c)
	if errors.Is(err, ErrFull) && !reserve {
		if err := d.l.Switch(); errors.Is(err, ErrBusy) {
			return
		}
		err = d.l.Append(c)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.commits = append(d.commits, remember(c))
}

func (d *model) sync() {
	n := uint64(len(d.commits))
	if err := d.l.Sync(); err != nil {
		d.t.Fatal(err)
	}
	d.durable = n
}

func (d *model) fold() {
	s := d.l.Sealed()
	if s == nil {
		return
	}
	if err := s.Sync(); err != nil {
		d.t.Fatal(err)
	}
	if err := s.Replay(func(r Record) error { return nil }); err != nil {
		d.t.Fatal(err)
	}
	d.folded = s.LastSeq()
	d.durable = max(d.durable, d.folded)
	if err := s.Release(); err != nil {
		d.t.Fatal(err)
	}
}

// recover crashes for good: another history goes on from what is found.
func (d *model) recover(m *memFS) {
	hook := d.m.before
	last, _ := d.found(m)
	d.commits = d.commits[:last]
	d.folded, d.durable = last, last
	var err error
	d.m = m
	if d.l, err = Open(d.m, "", d.l.Size()); err != nil {
		d.t.Fatal(err)
	}
	if d.r.IntN(2) == 0 { // a crash during Reset must leave the same
		d.m.before = func(string, *memFile) error {
			if last, _ := d.found(d.m.killed()); last != d.folded {
				d.t.Fatalf("kill during reset: commit %d, want %d", last, d.folded)
			}
			if last, _ := d.found(d.m.cut(d.r)); last != d.folded {
				d.t.Fatalf("power cut during reset: commit %d, want %d", last, d.folded)
			}
			return nil
		}
	}
	if err := d.l.Reset(last); err != nil {
		d.t.Fatal(err)
	}
	d.m.before = hook
}

// TestCrashAtAnyPointLeavesAPrefix crashes after each step and before each operation on a file.
func TestCrashAtAnyPointLeavesAPrefix(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := &model{t: rt, m: newMemFS()}
		d.r = rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		d.l = mustCreate(t, d.m, MinSize+int64(8*rapid.IntRange(0, 100).Draw(rt, "size")), 0)
		d.m.before = func(op string, _ *memFile) error {
			if op != "map" { // nothing changes between it and the operation before
				d.crash()
			}
			return nil
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.SampledFrom(strings.Fields("append append append append append append "+
				"sync switch seal fold reserve reset kill cut")).Draw(rt, "step") {
			case "append":
				d.append(false)
			case "sync":
				d.sync()
			case "switch":
				if err := d.l.Switch(); err != nil && !errors.Is(err, ErrBusy) {
					rt.Fatal(err)
				}
			case "seal":
				if s := d.l.Sealed(); s != nil {
					if err := s.Sync(); err != nil {
						rt.Fatal(err)
					}
				}
			case "fold":
				d.fold()
			case "reserve":
				d.append(true)
			case "reset": // a clean end
				d.folded = uint64(len(d.commits))
				d.durable = d.folded
				if err := d.l.Reset(d.folded); err != nil {
					rt.Fatal(err)
				}
			case "kill":
				d.recover(d.m.killed())
			case "cut":
				d.recover(d.m.cut(d.r))
			}
			d.crash()
		}
	})
	t.Logf("%d kills, %d power cuts", kills.Load(), cuts.Load())
}

// TestCreateIsDurable: whoever calls Create need not sync the directory.
func TestCreateIsDurable(t *testing.T) {
	dir, after := t.TempDir(), t.TempDir()
	rec, err := faultfs.NewRecorder(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	l, err := Create(rec.FS(), dir, MinSize, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rec.Before = func(*faultfs.Op) { err = rec.CutNothing().Write(after) }
	rec.Point()
	if err != nil {
		t.Fatal(err)
	}
	if _, r, err := recovered(t, vfs.OS, after, 7); err != nil || r.LastSeq != 7 || r.Torn {
		t.Error(r, err)
	}
}

// TestPowerCutWhileAGrownSegmentIsCutBack: a header that promises more than the file has would be
// taken for damage.
func TestPowerCutWhileAGrownSegmentIsCutBack(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	large := text(1, strings.Repeat("large", 50_000))
	for _, err := range []error{l.Reserve(RecordSize(large)), l.Append(large), l.Switch(),
		l.Sealed().Sync()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	m.before = func(op string, f *memFile) error {
		for range 50 {
			if got, rec, err := recovered(t, m.cut(r), "", 1); len(got) > 0 || rec.Torn ||
				err != nil {
				t.Fatalf("before %s of %s: %d records, %+v, %v", op, f.name, len(got), rec, err)
			}
		}
		return nil
	}
	if err := l.Sealed().Release(); err != nil {
		t.Fatal(err)
	}
}

func mustOpen(t testing.TB, m *memFS) *Log {
	t.Helper()
	l, err := Open(m, "", MinSize)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func appendAll(t testing.TB, l *Log, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if err := l.Append(text(l.LastSeq()+1, s)); err != nil {
			t.Fatal(err)
		}
	}
}

func texts(commits []logged) string {
	var all []string
	for _, c := range commits {
		all = append(all, c.small)
	}
	return strings.Join(all, " ")
}

// TestRecordsOfAnOlderLifeAreNotReplayed: behind the new tail stand records that have just the
// sequence numbers that would come next.
func TestRecordsOfAnOlderLifeAreNotReplayed(t *testing.T) {
	for _, resized := range []bool{false, true} {
		m := newMemFS()
		l := mustCreate(t, m, MinSize, 0)
		appendAll(t, l, "a1", "a2", "a3", "a4", "a5", "a6")
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := l.Reset(0); err != nil {
			t.Fatal(err)
		}
		appendAll(t, l, "a1", "a2", "b3") // the same bytes, as far as the caller's go
		if resized {
			// Even without an end mark.
			clear(m.files["wal.0"].data[l.segments[0].tail:][:endMarkSize])
		}
		got, rec, err := recovered(t, m, "", 0)
		if texts(got) != "a1 a2 b3" || rec.Torn || err != nil {
			t.Errorf("%s, %+v, %v", texts(got), rec, err)
		}
		if r := mustOpen(t, m).Report()[0]; r.SeenSeq != 3 {
			t.Errorf("the stale records are taken for lost ones: %+v", r)
		}
	}
}

// TestRecordFitsOnlyBehindItsOwnPredecessor: two wals with the same salt differ in the first
// record only; the second record of one is put behind the first of the other.
func TestRecordFitsOnlyBehindItsOwnPredecessor(t *testing.T) {
	var disks []*memFS
	var tail int64
	for _, first := range []string{"a1", "b1"} {
		m := newMemFS()
		l := mustCreate(t, m, MinSize, 0)
		l.newSalt = func() uint64 { return 42 }
		appendAll(t, l, first)
		tail = l.segments[0].tail
		appendAll(t, l, "2")
		disks = append(disks, m)
	}
	copy(disks[0].files["wal.0"].data[tail:], disks[1].files["wal.0"].data[tail:])
	if got, _, _ := recovered(t, disks[0], "", 0); texts(got) != "a1" {
		t.Errorf("replayed %q", texts(got))
	}
}

// TestTornOlderSegmentEndsTheReplay: the power cut kept the newer segment and tore the
// older one, which was not synced.
func TestTornOlderSegmentEndsTheReplay(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	appendAll(t, l, "1", "2")
	lost := l.segments[0].tail
	appendAll(t, l, "3", "4")
	l.Switch()
	appendAll(t, l, "5", "6")
	m.files["wal.0"].data[lost+recordHeaderSize] ^= 1

	got, rec, err := recovered(t, m, "", 0)
	if texts(got) != "1 2" || !rec.Torn || err != nil {
		t.Errorf("%s, %+v, %v", texts(got), rec, err)
	}
	// Once the older one is folded, the newer one stands alone.
	got, rec, err = recovered(t, m, "", 4)
	if texts(got) != "5 6" || rec.Torn || err != nil {
		t.Errorf("%s, %+v, %v", texts(got), rec, err)
	}
}

// TestSegmentFollowsOnlyTheLifeItNames: the sequence numbers fit, but the older segment is that
// of another history.
func TestSegmentFollowsOnlyTheLifeItNames(t *testing.T) {
	for name, salts := range map[string][]uint64{"another salt": {1, 2, 3, 4},
		"another end": {1, 2, 1, 4}} {
		var disks []*memFS
		for _, s := range []string{"a", "b"} {
			m := newMemFS()
			l := mustCreate(t, m, MinSize, 0)
			l.newSalt = func() uint64 { s := salts[0]; salts = salts[1:]; return s }
			appendAll(t, l, s+"1", s+"2")
			l.Switch()
			appendAll(t, l, s+"3")
			disks = append(disks, m)
		}
		disks[0].put("wal.1", disks[1].files["wal.1"].data)
		got, rec, err := recovered(t, disks[0], "", 0)
		if texts(got) != "a1 a2" || !rec.Torn || err != nil {
			t.Errorf("%s: %s, %+v, %v", name, texts(got), rec, err)
		}
	}
}

// TestLostSegmentIsDamageIfItWasSynced: the newer segment says that the older one had been synced.
func TestLostSegmentIsDamageIfItWasSynced(t *testing.T) {
	for _, synced := range []bool{false, true} {
		m := newMemFS()
		l := mustCreate(t, m, MinSize, 0)
		idle := string(m.files["wal.0"].data)
		appendAll(t, l, "1")
		l.Switch()
		appendAll(t, l, "2")
		if synced {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		m.put("wal.0", []byte(idle))
		got, rec, err := recovered(t, m, "", 0)
		if len(got) != 0 || rec.Torn == synced || errors.Is(err, ErrCorrupt) != synced {
			t.Errorf("synced %v: %s, %+v, %v", synced, texts(got), rec, err)
		}
	}
}

func TestKillWhileAHeaderIsWritten(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	appendAll(t, l, "1")
	l.Switch()
	appendAll(t, l, "2")
	if err := l.Sealed().Release(); err != nil {
		t.Fatal(err)
	}
	l.Switch()
	l.active.header.salt = 99
	h := l.active.header
	h.size = l.active.size()
	var b [headerBytes]byte
	h.encode(&b)
	data := m.files["wal.0"].data
	for stored := range headerBytes {
		k := m.killed()
		half := k.files["wal.0"].data
		copy(half, magicBusy[:])
		copy(half[8:8+min(stored, headerBytes-8)], b[8:])
		if got, rec, err := recovered(t, k, "", 1); texts(got) != "2" || rec.Torn || err != nil {
			t.Fatalf("%d bytes stored: %s, %+v, %v", stored, texts(got), rec, err)
		}
	}
	putHeader(data, &b)
	if got, rec, err := recovered(t, m, "", 1); texts(got) != "2" || rec.Torn || err != nil {
		t.Fatalf("%s, %+v, %v", texts(got), rec, err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	m := newMemFS()
	mustCreate(t, m, MinSize, 0)
	b := m.files["wal.1"].data
	le.PutUint32(b[8:], version+1)
	le.PutUint32(b[508:], crcOf(b[:508]))
	if _, err := Open(m, "", MinSize); err == nil || errors.Is(err, ErrCorrupt) ||
		errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}
