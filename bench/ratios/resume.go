//go:build linux

package ratios

import (
	"context"
	"fmt"
	"os"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
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

// alone makes a runtime, compiles and instantiates the module and does nothing else. It is what
// each way to resume has to do anyway.
func (r *run) alone(cacheDir string) (*op, error) {
	rewritten, _, err := rewriter.Rewrite(r.wasm, rewriter.Options{})
	name := "make a runtime, compile and instantiate the module, nothing else"
	if cacheDir != "" {
		name = "make a runtime, load the compiled module and instantiate it, nothing else"
	}
	return opening(name, func() (func() error, error) {
		p, err := lab.NewPlain(rewritten, cacheDir)
		return p.Close, err
	}), err
}

// resumeTime: from nothing to a guest that takes events, after a clean close. Compiled code comes
// from a cache on the disk, as in the command, or is made anew.
func resumeTime(r *run) error {
	cacheDir := r.path("cache")
	alone, err := r.alone(cacheDir)
	if err != nil {
		return err
	}
	anew, err := r.alone("")
	if err != nil {
		return err
	}
	ops := []*op{alone, anew}
	type opened struct{ cached, anew map[int]*op }
	newOpened := func() opened { return opened{make(map[int]*op), make(map[int]*op)} }
	add := func(o opened, what string, mib int, open func(cacheDir string) (func() error, error)) {
		name := fmt.Sprintf("%s, %d MiB", what, mib)
		o.cached[mib] = opening(name, func() (func() error, error) { return open(cacheDir) })
		ops = append(ops, o.cached[mib])
		if mib == 256 {
			o.anew[mib] = opening(name+", compiled anew",
				func() (func() error, error) { return open("") })
			ops = append(ops, o.anew[mib])
		}
	}
	modes := map[mmrun.Mode]opened{mmrun.Continuous: newOpened(), mmrun.Atomic: newOpened()}
	restore := newOpened()
	for _, mib := range []int{1, 16, 64, 256, 1024} {
		for mode, o := range modes {
			if mode == mmrun.Continuous && mib > 256 {
				continue
			}
			var all contestants
			name := fmt.Sprint(mode, mib)
			if _, err := r.state(&all, name, mib, true, mmrun.WithMode(mode)); err != nil {
				return err
			}
			all.close()
			add(o, "open, "+mode.String(), mib, func(cacheDir string) (func() error, error) {
				s, err := lab.ResumeState(r.path(name), cacheDir)
				return s.Close, err
			})
		}
		if mib > 256 {
			continue
		}
		dir := r.path(fmt.Sprint("snapshot", mib))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		s, err := lab.NewSnapshot(r.wasm, dir, "")
		if err != nil {
			return err
		}
		if err := lab.Prepare(s, mib, true); err != nil {
			return err
		}
		if err := s.Close(); err != nil {
			return err
		}
		add(restore, "restore of a copy-based snapshot", mib,
			func(cacheDir string) (func() error, error) {
				s, err := lab.NewSnapshot(r.wasm, dir, cacheDir)
				if err != nil {
					return nil, err
				}
				return s.Close, s.Restore()
			})
	}
	for _, o := range ops { // to fill the cache
		if err := o.run(); err != nil {
			return err
		}
		if err := o.after(1); err != nil {
			return err
		}
	}
	if err := takeTurns(wall, min(r.rounds, 31), ops...); err != nil {
		return err
	}
	r.note(ops...)
	for _, mode := range []mmrun.Mode{mmrun.Continuous, mmrun.Atomic} {
		o := modes[mode]
		ratio, name := restore.cached[256].median()/o.cached[256].median(), fmt.Sprintf("restore "+
			"of a copy-based snapshot / open, %s, 256 MiB", mode)
		if mode == mmrun.Continuous {
			r.atLeast(name, ratio, 50, "x")
		} else {
			r.figure(name, "%s x", number(ratio))
		}
		r.figure(fmt.Sprintf("restore of a copy-based snapshot / open, %s, 256 MiB, compiled "+
			"anew in both", mode), "%s x",
			number(restore.anew[256].median()/o.anew[256].median()))
	}
	r.atMost("open of 1024 MiB, atomic, beyond making a runtime and loading the module",
		(modes[mmrun.Atomic].cached[1024].median()-alone.median())*1e3, 5, " ms")
	return nil
}

// recoveryTime: an open that has to replay the wal first.
func recoveryTime(r *run) error {
	alone, err := r.alone("")
	if err != nil {
		return err
	}
	ops := []*op{alone}
	var full []*op
	for _, size := range []int{1, 4, 16} {
		for _, pages := range []int{1, 1024, 8192} {
			for _, synced := range []bool{false, true} {
				s, err := lab.NewState(r.wasm, r.path("state"),
					mmrun.WithWALSize(int64(2*size*lab.MiB)))
				if err != nil {
					return err
				}
				if err := lab.Prepare(s, 64, true); err != nil {
					return err
				}
				// the loads are commits, too
				if err := s.Checkpoint(context.Background()); err != nil {
					return err
				}
				events, err := s.FillWAL(int64(size*lab.MiB-64<<10), pages)
				if err != nil {
					return err
				}
				where := map[bool]string{false: "after a kill (wal in the page cache)",
					true: "after a power cut (wal on the disk)"}[synced]
				name := fmt.Sprintf("recovery of %d MiB of wal, %d events of %s, %s", size, events,
					pagesOf(pages), where)
				o := &op{name: name, n: 1}
				var opened *lab.State
				i := 0
				copyName := func() string {
					return r.path(fmt.Sprintf("copy-%d-%d-%v-%d", size,
						pages, synced, i))
				}
				for range 5 {
					i++
					if err := s.CopyFiles(copyName(), synced); err != nil {
						return err
					}
				}
				i = 0
				o.run = func() (err error) {
					i++
					opened, err = lab.NewState(nil, copyName())
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
