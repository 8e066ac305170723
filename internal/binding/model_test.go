package binding

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// model is a state directory, as far as it matters here, and what it stands for. A commit sets
// one of four values to one that no other commit has: value 0 is a global, the others are pages.
type model struct {
	global  int // in the slot
	slotSeq uint64
	slot    uint64
	memory  [4]int // of pages 1 to 3
	sums    [4]int // the values that the checksums are of
	stamp   Header
	log     []commit
	logEnd  uint64

	next, stretch uint64 // what the first commit after a checkpoint says; 0 if it has been said
	seq           uint64
	committed     [4]int // the truth
}

type commit struct {
	seq, first, stretch uint64
	place, value        int
}

func newModel() *model {
	n := New()
	return &model{slotSeq: 1, slot: n, stamp: *NewHeader(Stamp{Seq: 1, Checkpoint: n}), next: n,
		stretch: New(), seq: 1, logEnd: 1}
}

func (m *model) clone() *model {
	c := *m
	c.log = slices.Clone(m.log)
	return &c
}

// accepted is what an opening and a verification find nothing against: the values that it leads to.
func (m *model) accepted() (values [4]int, err error) {
	f := &Files{SlotSeq: m.slotSeq, Slot: m.slot, Last: max(m.logEnd, m.slotSeq), Memory: true}
	values = m.memory
	values[0] = m.global
	var named [4]bool
	at := m.slotSeq
	for _, c := range m.log {
		if c.seq <= m.slotSeq {
			continue
		}
		if at++; c.seq != at {
			return values, errors.New("the log has a gap")
		}
		if c.seq == m.slotSeq+1 {
			f.First, f.Stretch = c.first, c.stretch
		}
		values[c.place], named[c.place] = c.value, true
	}
	if f.Stamp, err = m.stamp.Stamp(); err != nil {
		return values, err
	}
	for page := 1; page < 4; page++ {
		if !named[page] && m.memory[page] != m.sums[page] {
			return values, errors.New("a page does not have its checksum")
		}
	}
	return values, f.Check()
}

// run plays lives of states.
type run struct {
	t     *rapid.T
	all   []*model        // what was on the disk at any time
	truth map[[4]int]bool // what was ever committed
	value int

	crashAt int // the snapshot at which the state crashes
	crashed *model
}

// snap is called wherever a crash can come.
func (r *run) snap(m *model) {
	r.all = append(r.all, m.clone())
	if values, err := m.accepted(); err != nil || values != m.committed {
		r.t.Fatalf("as it is: %v: %v, want %v: %+v", err, values, m.committed, m)
	}
	if r.crashAt--; r.crashAt == 0 {
		r.crashed = m.clone()
	}
}

func (r *run) commit(m *model) {
	r.value++
	m.seq++
	c := commit{seq: m.seq, place: rapid.IntRange(0, 3).Draw(r.t, "place"), value: r.value}
	if m.next != 0 {
		c.first, c.stretch, m.next = m.next, m.stretch, 0
	}
	m.log, m.logEnd = append(m.log, c), m.seq
	m.committed[c.place] = c.value
	r.truth[m.committed] = true
	r.snap(m)
}

// checkpoint brings the files to commit last. A power cut may leave any of what is not synced.
func (r *run) checkpoint(m *model, number, stretch, last uint64) {
	target, global := m.memory, m.global
	changed := map[int]bool{}
	for _, c := range m.log {
		if c.seq <= m.slotSeq || c.seq > last {
			continue
		}
		if changed[c.place] = true; c.place == 0 {
			global = c.value
		}
		target[c.place] = c.value
	}
	delete(changed, 0)
	pages := slices.Sorted(maps.Keys(changed))
	if len(pages) > 0 {
		pages = rapid.Permutation(pages).Draw(r.t, "pages")
	}
	split := rapid.IntRange(0, len(pages)).Draw(r.t, "first batch")
	if split > 0 && split < len(pages) {
		r.batch(m, Stamp{Seq: last, Checkpoint: New(), Before: m.slot, Stretch: stretch}, target,
			pages[:split])
		pages = pages[split:]
	}
	r.batch(m, Stamp{Seq: last, Checkpoint: number, Before: m.slot, Stretch: stretch}, target,
		pages)
	m.global, m.slotSeq, m.slot = global, last, number
	r.snap(m)
	m.log = slices.DeleteFunc(slices.Clone(m.log), func(c commit) bool { return c.seq <= last })
	r.snap(m)
}

func (r *run) batch(m *model, stamp Stamp, target [4]int, pages []int) {
	for _, page := range pages {
		m.sums[page] = target[page]
		r.snap(m)
	}
	whole, room := m.stamp, [HeaderLength]byte{}
	whole.Set(room[:], stamp)
	for i := range whole.copies {
		if whole.copies[i].Stamp == stamp {
			m.stamp.copies[i].err = errDamaged // torn
		}
	}
	r.snap(m)
	m.stamp = whole
	r.snap(m)
	for _, page := range pages {
		m.memory[page] = target[page]
		r.snap(m)
	}
}

// live goes on with a state for some checkpoints, and crashes in some of them.
func (r *run) live(m *model, checkpoints int) *model {
	for range checkpoints {
		for range rapid.IntRange(0, 3).Draw(r.t, "commits") {
			r.commit(m)
		}
		if m.seq == m.slotSeq {
			continue
		}
		number, stretch, last := New(), m.stretch, m.seq
		m.next, m.stretch = number, New()
		for range rapid.IntRange(0, 2).Draw(r.t, "commits meanwhile") {
			r.commit(m)
		}
		r.crashAt, r.crashed = rapid.IntRange(0, 12).Draw(r.t, "crash"), nil
		r.checkpoint(m, number, stretch, last)
		for r.crashed != nil { // and the recovery may crash
			m = r.crashed
			r.crashAt, r.crashed = rapid.IntRange(0, 20).Draw(r.t, "crash"), nil
			r.open(m)
		}
	}
	return m
}

// open makes a checkpoint of all that the log has, and begins a new stretch of it.
func (r *run) open(m *model) {
	for _, c := range m.log {
		if c.seq == m.slotSeq+1 {
			r.checkpoint(m, New(), c.stretch, m.seq)
			break
		}
	}
	m.log, m.logEnd, m.next, m.stretch = nil, m.seq, m.slot, New()
	r.snap(m)
}

// Two lives of a state, going on from one backup, with crashes at any step. Nothing is ever said
// against the files as they are. Of all mixes of their files, of any two times, those that
// nothing is said against are states that one of the two has been in.
func TestMixesAreFoundAndCrashesAreNot(t *testing.T) {
	found, harmless := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		r := &run{t: t, truth: map[[4]int]bool{{}: true}}
		backup := r.live(newModel(), rapid.IntRange(0, 2).Draw(t, "before the backup"))
		for range 2 {
			m := backup.clone()
			r.open(m)
			r.live(m, 2)
		}
		for range 300 {
			a := rapid.SampledFrom(r.all).Draw(t, "one")
			b := rapid.SampledFrom(r.all).Draw(t, "other")
			mix := a.clone()
			which := rapid.IntRange(1, 14).Draw(t, "files of the other")
			if which&1 != 0 {
				mix.global, mix.slotSeq, mix.slot = b.global, b.slotSeq, b.slot
			}
			if which&2 != 0 {
				mix.sums, mix.stamp = b.sums, b.stamp
			}
			if which&4 != 0 {
				mix.memory = b.memory
			}
			if which&8 != 0 {
				mix.log, mix.logEnd = b.log, b.logEnd
			}
			switch values, err := mix.accepted(); {
			case err != nil:
				found++
			case !r.truth[values]:
				t.Fatalf("mix %04b of %+v\nand %+v is taken for a state: %v", which, a, b, values)
			default:
				harmless++
			}
		}
	})
	t.Logf("%d mixes found, %d harmless", found, harmless)
}
