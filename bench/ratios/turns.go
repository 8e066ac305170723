//go:build linux

package ratios

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// batchTime is about how long a contestant works in one round. It is shorter than a time slice
// of the scheduler, so that most batches are not interrupted, whatever else the machine does.
const batchTime = 500 * time.Microsecond

// clock says which time counts. Work that never waits is measured by the time its thread was on a
// processor, page faults and system calls included, so that what else the machine does takes no
// part in it. The measuring goroutine is locked to its thread.
type clock int32

const (
	wall    clock = unix.CLOCK_MONOTONIC // 1: the zero value is none
	thread  clock = unix.CLOCK_THREAD_CPUTIME_ID
	process clock = unix.CLOCK_PROCESS_CPUTIME_ID // with what goes on in the background
)

func (c clock) now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(c), &t); err != nil {
		panic(err) // all three exist on every Linux
	}
	return time.Duration(t.Nano())
}

// op is a contestant in a round.
type op struct {
	name  string
	run   func() error // once
	clock clock        // what its time is measured by
	n     int          // runs in a batch; 0: as many as fit into batchTime
	warm  int          // runs before a batch that are not measured
	// before and after surround a batch of n, unmeasured.
	before, after func(n int) error

	samples []float64 // seconds per run, one a batch
}

// takeTurns runs all contestants round by round, by the clock given.
func takeTurns(c clock, rounds int, ops ...*op) error {
	for _, o := range ops {
		if o.clock == 0 {
			o.clock = c
		}
	}
	for _, o := range ops {
		if o.n == 0 {
			if err := o.calibrate(); err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
		}
	}
	for range rounds {
		for _, o := range ops {
			took, err := o.batch()
			if err != nil {
				return fmt.Errorf("%s: %w", o.name, err)
			}
			o.samples = append(o.samples, took.Seconds()/float64(o.n))
		}
	}
	return nil
}

// calibrate finds how many runs fit into a batch.
func (o *op) calibrate() error {
	for o.n = 1; ; o.n *= 2 {
		best := time.Hour
		for range 3 {
			took, err := o.batch()
			if err != nil {
				return err
			}
			best = min(best, took)
		}
		if best > batchTime/2 {
			return nil
		}
	}
}

func (o *op) batch() (time.Duration, error) {
	for range o.warm {
		if err := o.run(); err != nil {
			return 0, err
		}
	}
	if o.before != nil {
		if err := o.before(o.n); err != nil {
			return 0, err
		}
	}
	start := o.clock.now()
	for range o.n {
		if err := o.run(); err != nil {
			return 0, err
		}
	}
	took := o.clock.now() - start
	if o.after != nil {
		return took, o.after(o.n)
	}
	return took, nil
}

// median is in seconds.
func (o *op) median() float64 { return quantile(o.samples, 0.5) }

func quantile(samples []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[min(int(q*float64(len(s))), len(s)-1)]
}

// duration writes seconds for people.
func duration(seconds float64) string {
	for _, u := range []struct {
		unit  string
		scale float64
	}{{"s", 1}, {"ms", 1e-3}, {"µs", 1e-6}} {
		if seconds >= u.scale {
			return number(seconds/u.scale) + " " + u.unit
		}
	}
	return fmt.Sprintf("%.0f ns", seconds*1e9)
}

// note writes the median and the middle half of the batches into the table of figures.
func (r *run) note(ops ...*op) {
	for _, o := range ops {
		r.figure(o.name, "%s (%s to %s)", duration(o.median()), duration(quantile(o.samples, 0.25)),
			duration(quantile(o.samples, 0.75)))
	}
}

func pagesOf(n int) string {
	if n == 1 {
		return "1 page"
	}
	return fmt.Sprintf("%d pages", n)
}
