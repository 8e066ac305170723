//go:build linux

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench"
	"github.com/mmrun/mmrun/rewriter"
)

var ctx = context.Background()

// opening is an op that opens something; it is closed unmeasured.
func opening(name string, open func() (func() error, error)) *op {
	var closer func() error
	return &op{name: name, n: 1,
		run:   func() (err error) { closer, err = open(); return err },
		after: func(int) error { return closer() },
	}
}

// alone compiles and instantiates the module and does nothing else.
func (r *run) alone() (*op, error) {
	rewritten, _, err := rewriter.Rewrite(r.wasm)
	return opening("compile and instantiate the module, nothing else",
		func() (func() error, error) { return bench.Instantiated(rewritten) }), err
}

func (r *run) openState(name string) (func() error, error) {
	s, err := bench.NewState(nil, r.path(name))
	if err != nil {
		return nil, err
	}
	return s.Close, nil
}

// resumeTime: from nothing to a guest that takes events, after a clean close.
func resumeTime(r *run) error {
	alone, err := r.alone()
	if err != nil {
		return err
	}
	ops := []*op{alone}
	continuous, atomic, restore := map[int]*op{}, map[int]*op{}, map[int]*op{}
	for _, mib := range []int{1, 16, 64, 256, 1024} {
		at := fmt.Sprintf(", %d MiB", mib)
		for mode, opened := range map[mmrun.Mode]map[int]*op{mmrun.Continuous: continuous, mmrun.Atomic: atomic} {
			if mode == mmrun.Continuous && mib > 256 {
				continue
			}
			var all contestants
			name := fmt.Sprint(mode, mib)
			if _, err := r.state(&all, name, mib, true, mmrun.WithMode(mode)); err != nil {
				return err
			}
			all.close()
			opened[mib] = opening("open, "+mode.String()+at, func() (func() error, error) { return r.openState(name) })
			ops = append(ops, opened[mib])
		}
		if mib > 256 {
			continue
		}
		dir := r.path(fmt.Sprint("snapshot", mib))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		s, err := bench.NewSnapshot(r.wasm, dir)
		if err != nil {
			return err
		}
		if err := bench.Prepare(s, mib, true); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		restore[mib] = opening("restore of a copy-based snapshot"+at, func() (func() error, error) {
			s, err := bench.NewSnapshot(r.wasm, dir)
			if err != nil {
				return nil, err
			}
			return s.Close, s.Restore()
		})
		ops = append(ops, restore[mib])
	}
	if err := takeTurns(wall, min(r.rounds, 21), ops...); err != nil {
		return err
	}
	r.note(ops...)
	beyond := func(o *op) float64 { return o.median() - alone.median() }
	r.atLeast("restore of a copy-based snapshot / open, continuous, 256 MiB", restore[256].median()/continuous[256].median(), 50, "x")
	r.atLeast("the same, each beyond compiling and instantiating", beyond(restore[256])/beyond(continuous[256]), 50, "x")
	r.atLeast("restore of a copy-based snapshot / open, atomic, 256 MiB", restore[256].median()/atomic[256].median(), 50, "x")
	r.atLeast("the same, each beyond compiling and instantiating", beyond(restore[256])/beyond(atomic[256]), 50, "x")
	r.atMost("open of 1024 MiB, atomic, beyond compiling and instantiating", (atomic[1024].median()-alone.median())*1e3, 5, " ms")
	return nil
}

// recoveryTime: an open that has to replay the journal first.
func recoveryTime(r *run) error {
	alone, err := r.alone()
	if err != nil {
		return err
	}
	ops := []*op{alone}
	var full []*op
	for _, size := range []int{1, 4, 16} {
		for _, pages := range []int{1, 1024, 8192} {
			for _, synced := range []bool{false, true} {
				s, err := bench.NewState(r.wasm, r.path("state"), mmrun.WithJournalSize(int64(2*size*bench.MiB)))
				if err != nil {
					return err
				}
				if err := bench.Prepare(s, 64, true); err != nil {
					return err
				}
				if err := s.Checkpoint(); err != nil { // the loads are commits, too
					return err
				}
				events, err := s.FillJournal(int64(size*bench.MiB-64<<10), pages)
				if err != nil {
					return err
				}
				where := map[bool]string{false: "after a kill (journal in the page cache)", true: "after a power cut (journal on the disk)"}[synced]
				name := fmt.Sprintf("recovery of %d MiB of journal, %d events of %s, %s", size, events, pagesOf(pages), where)
				o := &op{name: name, n: 1}
				var opened *bench.State
				i := 0
				copyName := func() string { return r.path(fmt.Sprintf("copy-%d-%d-%v-%d", size, pages, synced, i)) }
				for range 5 {
					i++
					if err := s.CopyFiles(copyName(), synced); err != nil {
						return err
					}
				}
				i = 0
				o.run = func() (err error) {
					i++
					opened, err = bench.NewState(nil, copyName())
					return err
				}
				o.after = func(int) error {
					if got := opened.Stats().Recovered; got < uint64(events) {
						return fmt.Errorf("%d commits recovered, want at least %d", got, events)
					}
					return opened.Close()
				}
				if err := s.Close(); err != nil {
					return err
				}
				if err := os.RemoveAll(r.path("state")); err != nil {
					return err
				}
				if err := takeTurns(wall, 5, o, alone); err != nil {
					return err
				}
				for j := 1; j <= 5; j++ {
					i = j
					if err := os.RemoveAll(copyName()); err != nil {
						return err
					}
				}
				ops = append(ops, o)
				if size == 16 {
					full = append(full, o)
				}
			}
		}
	}
	r.note(ops...)
	for _, o := range full {
		r.atMost(o.name, o.median(), 0.3, " s")
	}
	return nil
}
