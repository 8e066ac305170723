//go:build linux

package work

import (
	"fmt"
	"time"

	"github.com/mmrun/mmrun/bench/lab"
	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// The rows that others are compared with.
const (
	fastest   = "mmrun atomic never"
	durable   = "mmrun atomic always"
	floorKill = "pwrite 4 KiB"
	floorSync = "pwrite+fdatasync"
)

// group is those who promise about the same.
type group struct {
	name, reference, floor string
	fits                   func(peers.Peer) bool
}

var groups = []group{
	{"kill -9 safe", fastest, floorKill,
		func(p peers.Peer) bool { return p.Safety != peers.Power }},
	{"power cut safe", durable, floorSync,
		func(p peers.Peer) bool { return p.Safety == peers.Power }},
}

// counter is W1: one commit adds one.
func counter(r *Run) error {
	for _, g := range groups {
		all, err := r.enter(peers.Options{}, g.fits)
		if err != nil {
			return err
		}
		for _, c := range all {
			c.op = func(int) error { c.done++; return c.store.Increment(0) }
			if err := c.calibrate(2); err != nil {
				return err
			}
		}
		r.Step("W1, a counter, " + g.name)
		turns(all, r.rounds(51), func(c *contestant, _ int) {
			c.batch(c.n, c.op)
			c.timed(c.n, c.op)
		})
		for _, c := range all {
			if got, err := c.store.Count(0); c.err == nil && (err != nil || got != c.done) {
				c.err = fmt.Errorf("counted %d instead of %d (%v)", got, c.done, err)
			}
		}
		r.Tables = append(r.Tables, report.Table{Workload: "W1", Case: "one event, " + g.name,
			Unit: "µs an event", Reference: g.reference, Floor: g.floor, Rows: rows(all)})
		if err := leave(all); err != nil {
			return err
		}
	}
	return r.byMemory()
}

// guestContestants are all forms of running a guest with a memory of mib MiB.
func (r *Run) guestContestants(mib int, x float64, export string, stack []uint64) (
	all []*contestant, err error,
) {
	for _, form := range peers.Forms() {
		if !r.Peer(form.Name) {
			continue
		}
		c, err := r.newContestant(form.Name, form.Safety, x)
		if err != nil {
			return all, err
		}
		r.Step(fmt.Sprintf("opening %s with %d MiB", form.Name, mib))
		guest, err := form.Open("stores", c.dir)
		if err != nil {
			return all, fmt.Errorf("%s: %w", form.Name, err)
		}
		c.close = guest.Close
		all = append(all, c)
		if err := lab.Prepare(guest, mib, true); err != nil {
			return all, fmt.Errorf("%s: %w", form.Name, err)
		}
		event, own := guest.Event(export), make([]uint64, max(len(stack), 1))
		c.op = func(int) error {
			copy(own, stack)
			c.done++
			own[len(stack)-1] = c.done // another value each time
			return event(own)
		}
	}
	return all, nil
}

// byMemory: one store into one page, in memories of different sizes that have been written to.
func (r *Run) byMemory() error {
	t := report.Table{Workload: "W1", Case: report.CaseMemory, Unit: "µs an event",
		Reference: fastest, XName: "MiB"}
	sizes := []int{1, 16, 64, 256, 1024}
	if r.Quick {
		sizes = []int{1, 64}
	}
	for _, mib := range sizes {
		all, err := r.guestContestants(mib, float64(mib), "one", []uint64{64, 0})
		if err != nil {
			return err
		}
		for _, c := range all {
			if err := c.calibrate(1); err != nil {
				return err
			}
		}
		r.Step(fmt.Sprintf("W1, one event in %d MiB", mib))
		turns(all, r.rounds(15), func(c *contestant, _ int) { c.batch(c.n, c.op) })
		t.Rows = append(t.Rows, rows(all)...)
		if err := leave(all); err != nil {
			return err
		}
	}
	r.Tables = append(r.Tables, t)
	return nil
}

// rewrite is W3: an event changes all bytes of a part of 256 MiB.
func rewrite(r *Run) error {
	mib := r.pick(256, 64)
	total := mib * lab.MiB / lab.PageSize
	t := report.Table{Workload: "W3", Case: report.CasePages, Unit: "µs an event",
		Reference: fastest, XName: "pages", Floor: copyFloor,
		Notes: fmt.Sprintf("Memory of %d MiB; sustained, so that checkpoints are included.", mib)}
	for _, pages := range []int{1, total / 100, total / 10, total} {
		all, err := r.guestContestants(mib, float64(pages), "fill",
			[]uint64{0, uint64(pages * lab.PageSize), 0})
		if err != nil {
			return err
		}
		floor, err := r.copying(pages)
		if err != nil {
			return err
		}
		all = append(all, floor)
		for _, c := range all {
			if err := c.calibrate(1); err != nil {
				return err
			}
		}
		r.Step(fmt.Sprintf("W3, %d pages an event", pages))
		turns(all, r.rounds(15), func(c *contestant, _ int) { c.batch(c.n, c.op) })
		t.Rows = append(t.Rows, rows(all)...)
		if err := leave(all); err != nil {
			return err
		}
	}
	r.Tables = append(r.Tables, t)
	return nil
}

const copyFloor = "floor: copy of the bytes"

// copying copies as many bytes as an event changes, from a place to another in memory.
func (r *Run) copying(pages int) (*contestant, error) {
	c, err := r.newContestant(copyFloor, peers.Nothing, float64(pages))
	if err != nil {
		return nil, err
	}
	from, to := make([]byte, pages*lab.PageSize), make([]byte, pages*lab.PageSize)
	c.op = func(int) error {
		copy(to, from)
		return nil
	}
	return c, nil
}

// turnTime is about how long a contestant works in a round.
const turnTime = 4 * time.Millisecond

// calibrate finds how many operations a round has.
func (c *contestant) calibrate(atLeast int) error {
	for c.n = 1; ; c.n *= 2 {
		start := time.Now()
		for i := range c.n {
			if err := c.op(i); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		if time.Since(start) > turnTime/2 {
			c.n = max(c.n, atLeast)
			return nil
		}
	}
}
