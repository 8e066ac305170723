//go:build linux

package work

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// instances is W7: many counters that take turns. A guest is an instance with a state of its own;
// a database has a line for each.
func instances(r *Run) error {
	moreDescriptors()
	counts := []int{1, 10, 1000, 10_000}
	if r.Quick {
		counts = []int{1, 100}
	}
	for _, g := range groups {
		t := report.Table{Workload: "W7", Case: "round robin, " + g.name, Unit: "µs an event",
			Reference: g.reference, XName: "instances"}
		for _, n := range counts {
			all, err := r.enterMany(n, g.fits)
			if err != nil {
				return err
			}
			for _, c := range all {
				if err := c.calibrate(2); err != nil {
					return err
				}
			}
			r.Step(fmt.Sprintf("W7, %d instances, %s", n, g.name))
			turns(all, r.rounds(25), func(c *contestant, _ int) { c.batch(c.n, c.op) })
			t.Rows = append(t.Rows, rows(all)...)
			if err := leave(all); err != nil {
				return err
			}
		}
		r.Tables = append(r.Tables, t)
	}
	return nil
}

// moreDescriptors raises the soft limit to the hard one.
func moreDescriptors() {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) // what is there is enough for fewer
	}
}

// enterMany opens n counters of each peer. One that cannot have so many is out with its reason.
func (r *Run) enterMany(n int, fits func(peers.Peer) bool) (all []*contestant, err error) {
	for _, p := range peers.All() {
		if !r.Peer(p.Name) || !fits(p) || p.Why() != nil || p.CopyBased {
			continue
		}
		c, err := r.newContestant(p.Name, p.Safety, float64(n))
		if err != nil {
			return all, err
		}
		r.Step(fmt.Sprintf("opening %s, %d instances", p.Name, n))
		stores, closeAll, err := openMany(p, c.dir, n)
		if err != nil {
			c.err = err
			c.op = func(int) error { return nil }
			c.close = closeAll
			all = append(all, c)
			continue
		}
		c.close = closeAll
		next := 0
		c.op = func(int) error {
			i := next
			if next++; next == n {
				next = 0
			}
			return stores[i%len(stores)].Increment(uint32(i))
		}
		for i := range n { // each has been used before
			if err := c.op(i); err != nil {
				return all, fmt.Errorf("%s: %w", p.Name, err)
			}
		}
		all = append(all, c)
	}
	return all, nil
}

// openMany opens one store with n counters, or n guests. What it returns to close is never nil.
func openMany(p peers.Peer, dir string, n int) (stores []peers.Store, closeAll func() error,
	err error) {
	o := peers.Options{Dir: dir}
	count := 1
	if p.Guest {
		if o.Shared, err = peers.NewShared(""); err != nil {
			return nil, func() error { return nil }, err
		}
		count = n
	}
	closeAll = func() error {
		var err error
		for _, s := range stores {
			err = errors.Join(err, s.Close())
		}
		if o.Shared != nil {
			err = errors.Join(err, o.Shared.Close())
		}
		return err
	}
	for i := range count {
		if p.Guest {
			o.Dir = filepath.Join(dir, fmt.Sprint(i))
			if err := os.Mkdir(o.Dir, 0o700); err != nil {
				return nil, closeAll, err
			}
		}
		s, err := p.Open(o)
		if err != nil {
			return nil, closeAll, fmt.Errorf("instance %d: %w", i, err)
		}
		stores = append(stores, s)
	}
	return stores, closeAll, nil
}
