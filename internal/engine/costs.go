package engine

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/section"
)

// Tracker is how changed pages are found; the words are explained in the root package.
type Tracker int

// The trackers that can be asked for.
const (
	Auto Tracker = iota
	Kernel
	Barrier
)

/*
The section of tracker costs is a hint, which no commit depends on:

	bytes
	    1  version of this layout, 1
	   16  what was seen with the kernel's tracker
	   16  what was seen with the barrier

	what was seen
	    4  how many events were looked at; 0: nothing was seen
	    4  mean of the logarithms (base 2) of the nanoseconds of a whole event, a float
	    4  the same of the time in the guest's code
	    4  mean of the number of ranges that an event changed
*/
const (
	costsVersion = 1
	seenLength   = 16
	costsLength  = 1 + 2*seenLength
)

// costs are what events have cost with each tracker. Means are geometric: one event that a
// checkpoint or another process has held up says nothing of the others.
type costs struct{ kernel, barrier seen }

type seen struct {
	events                uint32
	total, guest, changes float64
}

// enough is how many events have to be looked at before they are believed.
const enough = 24

func (s *seen) add(total, guest time.Duration, changes int) {
	if s.events == math.MaxUint32 {
		return
	}
	s.events++
	n := float64(s.events)
	mean := func(m *float64, v float64) { *m += (v - *m) / n }
	mean(&s.total, math.Log2(max(1, float64(total))))
	mean(&s.guest, math.Log2(max(1, float64(guest))))
	mean(&s.changes, float64(changes))
}

func (s seen) known() bool { return s.events >= enough }

// nanoseconds of an event, and of its part in the guest's code.
func (s seen) nanoseconds() float64      { return math.Exp2(s.total) }
func (s seen) guestNanoseconds() float64 { return math.Exp2(s.guest) }

func (c costs) encode() []byte {
	b := []byte{costsVersion}
	for _, s := range []seen{c.kernel, c.barrier} {
		b = binary.LittleEndian.AppendUint32(b, s.events)
		for _, f := range []float64{s.total, s.guest, s.changes} {
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(f)))
		}
	}
	return b
}

// decodeCosts takes what it does not know for nothing.
func decodeCosts(b []byte) (c costs) {
	if len(b) != costsLength || b[0] != costsVersion {
		return c
	}
	for i, s := range []*seen{&c.kernel, &c.barrier} {
		p := b[1+i*seenLength:]
		s.events = binary.LittleEndian.Uint32(p)
		for j, f := range []*float64{&s.total, &s.guest, &s.changes} {
			v := float64(math.Float32frombits(binary.LittleEndian.Uint32(p[4+4*j:])))
			if math.IsNaN(v) || v < 0 || v > math.MaxUint32 {
				return costs{}
			}
			*f = v
		}
	}
	return c
}

// What is not known of one tracker is estimated from what was seen with the other one. The numbers
// are those of docs/architecture.md.
const (
	barrierGuest  = 1.2  // times as long takes the guest's code with the barrier
	barrierEvent  = 400  // ns that an event costs beside
	barrierChange = 250  // ns for each range that it changes
	kernelEvent   = 1000 // ns that an event costs with the kernel's tracker, at least
)

// choose takes the tracker of which less is to be expected, and says why.
func (c costs) choose() (barrier bool, why string) {
	k, b := c.kernel, c.barrier
	if !k.known() && !b.known() {
		return false, "nothing is known of the state's events yet"
	}
	without, with, estimated := k.nanoseconds(), b.nanoseconds(), ""
	switch {
	case !b.known():
		with = barrierGuest*k.guestNanoseconds() + barrierEvent + barrierChange*k.changes
		estimated = ", the former estimated"
	case !k.known():
		without = b.guestNanoseconds()/barrierGuest + kernelEvent
		estimated = ", the latter estimated"
	}
	// An estimate has to promise something.
	barrier = with < without
	if estimated != "" {
		barrier = with < 0.9*without
	}
	return barrier, fmt.Sprintf("%.1f µs an event with the barrier, %.1f without%s", with/1000,
		without/1000, estimated)
}

// chosen says which tracker a state gets, and why.
func (o *Options) chosen(kept []byte, continuous bool) (barrier bool, why string) {
	switch {
	case continuous:
		return false, "a continuous state has nothing to find"
	case o.Program:
		return false, "a program is looked at between two stores of a function"
	case o.Tracker == Kernel:
		return false, "it was asked for"
	case o.Tracker == Barrier:
		return true, "it was asked for"
	}
	return decodeCosts(kept).choose()
}

// AutoChoice is the tracker that Auto would choose for a state, and why.
func AutoChoice(s *globalsfile.State, continuous bool) (tracker Tracker, why string) {
	barrier, why := (&Options{Tracker: Auto}).chosen(s.Kept[section.TrackerCosts-section.FirstKept],
		continuous)
	if barrier {
		return Barrier, why
	}
	return Kernel, why
}

func (t Tracker) String() string { return [...]string{"auto", "kernel", "barrier"}[t] }

// sampleEvery is how many events go by for one that is looked at: three looks at the clock cost as
// much as a small event.
const sampleEvery = 32

// meter looks at some events of an atomic store, and has what it has seen kept with some commits.
type meter struct {
	now   func() time.Duration // monotonic
	costs costs
	own   *seen // of the tracker in use
	fresh seen  // of this opening

	events        uint64
	looking       bool
	began, called time.Duration
}

func newMeter(now func() time.Duration, kept []byte, barrier bool) *meter {
	m := &meter{now: now, costs: decodeCosts(kept)}
	if m.own = &m.costs.kernel; barrier {
		m.own = &m.costs.barrier
	}
	return m
}

func (m *meter) begin() {
	m.events++
	if m.looking = m.events%sampleEvery == 0; m.looking {
		m.began = m.now()
	}
}

// collecting is called when the guest's part of an event is over.
func (m *meter) collecting() {
	if m.looking {
		m.called = m.now()
	}
}

// committed is called at the end of an event that changed so many ranges.
func (m *meter) committed(changes int) {
	if !m.looking {
		return
	}
	m.looking = false
	m.fresh.add(m.now()-m.began, m.called-m.began, changes)
	if m.fresh.known() {
		*m.own = m.fresh // what an earlier opening saw may be of another machine
	}
}

// due gives what has been seen, as a change of the state to be kept with the commit that comes:
// after the first thousand events, then more and more seldom.
func (m *meter) due() (Change, bool) {
	const first = 1 << 10
	if m.events < first || m.events&(m.events-1) != 0 || !m.fresh.known() {
		return Change{}, false
	}
	return Change{ID: section.TrackerCosts, Bytes: m.costs.encode()}, true
}

var started = time.Now()

// monotonic is the time since the process began.
func monotonic() time.Duration { return time.Since(started) }
