//go:build linux

// Package work holds the workloads of the report: what the contestants are asked to do, in turns,
// and how it is timed and checked.
package work

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// Config of a run.
type Config struct {
	Dir   string // the files go to directories under it
	Quick bool
	// Peer says whether a contestant takes part.
	Peer func(name string) bool
	// Step is told what is done next.
	Step func(what string)
	// Executable is this program, which runs children with the argument "child".
	Executable string
	// Tail is how long each contestant of W9 runs.
	Tail time.Duration
}

// Workload is one of the report's.
type Workload struct {
	ID  string
	Run func(*Run) error
}

// Workloads in the order of the report.
var Workloads = []Workload{
	{"W1", counter}, {"W2", table}, {"W3", rewrite}, {"W4", queries}, {"W5", restart},
	{"W6", written}, {"W7", instances}, {"W9", tail},
}

// Run is a workload on its way.
type Run struct {
	Config
	Tables []report.Table
	dirs   int
}

// rounds is how often contestants take turns.
func (r *Run) rounds(full int) int {
	if r.Quick {
		return max(full/5, 3)
	}
	return full
}

// pick chooses a size.
func (r *Run) pick(full, quick int) int {
	if r.Quick {
		return quick
	}
	return full
}

// newDir makes an empty directory.
func (r *Run) newDir() (string, error) {
	r.dirs++
	dir := filepath.Join(r.Dir, fmt.Sprint(r.dirs))
	return dir, os.MkdirAll(dir, 0o700)
}

// contestant is at work.
type contestant struct {
	name  string
	dir   string
	store peers.Store // nil if it is asked for something else than a counter and a table
	op    func(i int) error
	close func() error
	n     int // operations of a round
	done  uint64

	loaded time.Duration
	row    report.Row
	lat    *hdrhistogram.Histogram // ns
	err    error                   // it is out
}

func (r *Run) newContestant(name string, safety peers.Safety, x float64) (*contestant, error) {
	c := &contestant{name: name, row: report.Row{Name: name, Safety: safety.String(), X: x}}
	c.close = func() error { return nil }
	c.lat = hdrhistogram.New(1, int64(time.Hour), 3)
	var err error
	c.dir, err = r.newDir()
	return c, err
}

// enter opens those peers that take part and fit.
func (r *Run) enter(o peers.Options, fits func(peers.Peer) bool) (all []*contestant, err error) {
	for _, p := range peers.All() {
		if !r.Peer(p.Name) || !fits(p) || p.Why() != nil {
			continue
		}
		c, err := r.newContestant(p.Name, p.Safety, 0)
		if err != nil {
			return all, err
		}
		o.Dir = c.dir
		r.Step("opening " + p.Name)
		if c.store, err = p.Open(o); err == nil {
			c.close = c.store.Close
			if o.Keys > 0 {
				start := time.Now()
				err = c.store.Load(o.Keys)
				c.loaded = time.Since(start)
			}
		}
		if err != nil {
			return all, fmt.Errorf("%s: %w", p.Name, err)
		}
		all = append(all, c)
	}
	return all, nil
}

// leave closes them and removes their files.
func leave(all []*contestant) error {
	var err error
	for _, c := range all {
		err = errors.Join(err, c.close(), os.RemoveAll(c.dir))
	}
	runtime.GC()
	debug.FreeOSMemory()
	return err
}

// cpu is the processor time of the process, and of what the contestant has outside of it.
func (c *contestant) cpu() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		panic(err) // it exists on every Linux
	}
	d := time.Duration(t.Nano())
	if server, ok := c.store.(interface{ CPU() time.Duration }); ok {
		d += server.CPU()
	}
	return d
}

const perMicrosecond = float64(time.Microsecond)

// batch runs op n times and notes the mean. One that fails is out.
func (c *contestant) batch(n int, op func(i int) error) {
	if c.err != nil {
		return
	}
	cpu, start := c.cpu(), time.Now()
	for i := range n {
		if c.err = op(i); c.err != nil {
			return
		}
	}
	took, used := time.Since(start), c.cpu()-cpu
	c.row.Samples = append(c.row.Samples, float64(took)/perMicrosecond/float64(n))
	c.row.CPU = append(c.row.CPU, float64(used)/perMicrosecond/float64(n))
}

// timed runs op n times and notes the time of each.
func (c *contestant) timed(n int, op func(i int) error) {
	if c.err != nil {
		return
	}
	last := time.Now()
	for i := range n {
		if c.err = op(i); c.err != nil {
			return
		}
		now := time.Now()
		if c.err = c.lat.RecordValue(min(int64(now.Sub(last)),
			c.lat.HighestTrackableValue())); c.err != nil {
			return
		}
		last = now
	}
}

// measured runs op n times, and notes the mean and the time of each. The clock is in both.
func (c *contestant) measured(n int, op func(i int) error) {
	c.batch(1, func(int) error {
		c.timed(n, op)
		return c.err
	})
	if c.err == nil {
		c.row.Samples[len(c.row.Samples)-1] /= float64(n)
		c.row.CPU[len(c.row.CPU)-1] /= float64(n)
	}
}

// turns lets each contestant work in each round, another one first each time.
func turns(all []*contestant, rounds int, work func(c *contestant, round int)) {
	for round := range rounds {
		for i := range all {
			work(all[(i+round)%len(all)], round)
		}
	}
}

// rows of all, for one table; what they have measured is forgotten.
func rows(all []*contestant) (rows []report.Row) {
	for _, c := range all {
		row := c.row
		row.Latency = latencyOf(c.lat)
		if c.err != nil {
			row = report.Row{Name: c.name, Safety: row.Safety, X: row.X, Failed: c.err.Error()}
		}
		rows = append(rows, row)
		c.row = report.Row{Name: c.name, Safety: row.Safety, X: row.X}
		c.lat.Reset()
	}
	return rows
}

// latencyOf is in microseconds; nil if nothing was timed.
func latencyOf(h *hdrhistogram.Histogram) *report.Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	at := func(percent float64) float64 {
		return float64(h.ValueAtPercentile(percent)) /
			perMicrosecond
	}
	return &report.Latency{P50: at(50), P99: at(99), P999: at(99.9), Max: at(100),
		N: h.TotalCount()}
}

// Floor are costs of the bare machine that no contestant shows. dir is where the files go.
func Floor(dir string) (map[string]float64, error) {
	const mib = 256
	f, err := os.Create(filepath.Join(dir, "floor"))
	if err != nil {
		return nil, err
	}
	block := make([]byte, 1<<20)
	start := time.Now()
	for range mib {
		if _, err = f.Write(block); err != nil {
			break
		}
	}
	err = errors.Join(err, f.Sync(), f.Close())
	took := time.Since(start)
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return nil, err
	}
	from, to := make([]byte, 1<<20), make([]byte, 1<<20)
	copy(to, from)
	begin := time.Now()
	const copies = 64
	for range copies {
		copy(to, from)
	}
	return map[string]float64{
		"sequential write of 256 MiB and fsync, MiB/s": mib / took.Seconds(),
		"copy within memory, MiB/s":                    copies / time.Since(begin).Seconds(),
	}, nil
}
