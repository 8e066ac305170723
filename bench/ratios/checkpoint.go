//go:build linux

package ratios

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// dirty writes to the first n pages of the memory, in events of 8192 pages or less, which is
// what an event may change without being folded by itself. With whole, all of each page changes.
func dirty(s *lab.State, n int, whole bool, v uint64) error {
	const most = 8192
	for page := 0; page < n; page += most {
		m := min(most, n-page)
		var err error
		if whole {
			err = s.Setup("fill", uint64(page*lab.PageSize), uint64(m*lab.PageSize), v&0xff)
		} else {
			err = s.Setup("touch", uint64(page), 1, uint64(m), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkpointSpeed: a checkpoint by the number of pages that it brings into the file.
func checkpointSpeed(r *run) error {
	var all contestants
	defer func() { all.close() }()
	s, err := r.state(&all, "state", 64, true, mmrun.WithWALSize(64*lab.MiB))
	if err != nil {
		return err
	}
	checkpoint := func() error { return s.Checkpoint(context.Background()) }
	v := uint64(1)
	for _, n := range []int{1, 64, 1024, 8192} {
		o := &op{name: fmt.Sprintf("checkpoint of %s", pagesOf(n)), n: 1, run: checkpoint}
		o.before = func(int) error {
			if err := checkpoint(); err != nil {
				return err
			}
			v++
			return dirty(s, n, false, v)
		}
		if err := takeTurns(wall, min(r.rounds, 21), o); err != nil {
			return err
		}
		r.figure(o.name, "%s, %.0f pages a second", duration(o.median()), float64(n)/o.median())
	}
	return nil
}

// foldedPages counts the pages that checkpoints have written, as they tell it to the log.
type foldedPages struct{ pages, folds atomic.Int64 }

func (h *foldedPages) Enabled(context.Context, slog.Level) bool { return true }
func (h *foldedPages) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *foldedPages) WithGroup(string) slog.Handler            { return h }
func (h *foldedPages) Handle(_ context.Context, rec slog.Record) error {
	if rec.Message == "checkpoint" {
		rec.Attrs(func(a slog.Attr) bool {
			if a.Key == "pages" {
				h.pages.Add(a.Value.Int64())
			}
			return true
		})
		h.folds.Add(1)
	}
	return nil
}

// paces times each of a row of events. The difference between the two clocks is waiting, for the
// instance or for a processor that others use.
type paces struct{ wall, thread []float64 }

func (p *paces) until(event func() error, done func() bool) error {
	lastWall, lastThread := wall.now(), thread.now()
	for !done() {
		if err := event(); err != nil {
			return err
		}
		nowWall, nowThread := wall.now(), thread.now()
		p.wall = append(p.wall, (nowWall - lastWall).Seconds())
		p.thread = append(p.thread, (nowThread - lastThread).Seconds())
		lastWall, lastThread = nowWall, nowThread
	}
	return nil
}

func (p *paces) median() float64  { return quantile(p.wall, 0.5) }
func (p *paces) longest() float64 { return slices.Max(p.wall) }

func times(n int) func() bool {
	return func() bool { n--; return n < 0 }
}

func (p *paces) String() string {
	return fmt.Sprintf("median %s, 99 of 100 within %s, longest %s (most on the processor: %s), "+
		"%d events",
		duration(p.median()), duration(quantile(p.wall,
			0.99)), duration(p.longest()), duration(slices.Max(p.thread)), len(p.wall))
}

// backgroundCheckpoint: one-page events while 256 MiB of dirty pages are brought into the file.
func backgroundCheckpoint(r *run) error {
	for _, whole := range []bool{false, true} {
		if err := r.background(whole); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) background(whole bool) error {
	const mib, pages = 320, 256 * lab.MiB / lab.PageSize
	what, wal := "8 bytes in each page", int64(mmrun.DefaultWALSize)
	if whole {
		what, wal = "all bytes of each page", 2*320*lab.MiB
	}
	var folded foldedPages
	dir := fmt.Sprint("state", whole)
	s, err := lab.NewState(r.wasm, r.path(dir), mmrun.WithWALSize(wal),
		mmrun.WithLogger(slog.New(&folded)))
	if err != nil {
		return err
	}
	if err := lab.Prepare(s, mib, true); err != nil {
		return err
	}
	event := s.Event("one")
	stack, v := make([]uint64, 2), uint64(0)
	one := func() error {
		v++
		stack[0], stack[1] = 300*lab.MiB, v
		return event(stack)
	}
	p, err := lab.NewPlain(r.wasm, "")
	if err != nil {
		return err
	}
	if err := lab.Prepare(p, mib, true); err != nil {
		return err
	}
	plainEvent := p.Event("one")
	plain := func() error {
		stack[0], stack[1] = 300*lab.MiB, v
		return plainEvent(stack)
	}

	var before, dirtied, during, after, control paces
	if err := before.until(one, times(20000)); err != nil {
		return err
	}
	if err := s.Checkpoint(context.Background()); err != nil {
		return err
	}
	startPages := folded.pages.Load()
	if err := dirty(s, pages, whole, 0x77); err != nil {
		return err
	}
	if err := dirtied.until(one, times(200)); err != nil {
		return err
	}
	start := time.Now()
	alreadyPages := folded.pages.Load()
	done := make(chan error, 1)
	var ended atomic.Bool
	go func() {
		err := s.Checkpoint(context.Background())
		ended.Store(true)
		done <- err
	}()
	if err := during.until(one, ended.Load); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return err
	}
	took := time.Since(start)
	pagesFolded := folded.pages.Load() - alreadyPages
	if err := after.until(one, times(20000)); err != nil {
		return err
	}
	// The machine's own pauses: plain calls for as long, with nothing in the background.
	end := time.Now().Add(took)
	if err := control.until(plain, func() bool { return time.Now().After(end) }); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}

	name := "256 MiB of dirty pages, " + what
	r.figure(name+": events before", "%s", &before)
	r.figure(name+": events after the pages were written and before the checkpoint", "%s", &dirtied)
	r.figure(name+": events during the checkpoint", "%s", &during)
	r.figure(name+": events after it", "%s", &after)
	r.figure(name+": plain calls for as long", "%s", &control)
	r.figure(name+": checkpoint", "%s, %d pages in it, %d folded before it was asked for",
		duration(took.Seconds()), pagesFolded, alreadyPages-startPages)
	r.atMost(name+": median of events during / before the checkpoint",
		during.median()/before.median(), 2, "x")
	r.atMost(name+": longest pause during the checkpoint", during.longest()*1e3, 20, " ms")
	r.atMost(name+": the same by processor time", slices.Max(during.thread)*1e3, 20, " ms")
	return os.RemoveAll(r.path(dir))
}
