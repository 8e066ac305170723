package main

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// progressAfter is how long work may take before something moves on a terminal.
	progressAfter = time.Second
	// progressEvery is how often it moves then.
	progressEvery = 100 * time.Millisecond
)

// working shows on a terminal that work is going on and for how long, from a second after its
// beginning until the function returned is called. Into a file or a pipe nothing is written.
func (a *app) working(what string) (finished func()) { return a.bar(what).finish }

// bar is working for work that says how far it has come.
func (a *app) bar(what string) *bar {
	if !isTerminal(a.errOut) {
		return &bar{}
	}
	return showWorking(a.errOut, what, progressAfter)
}

// bar is what is shown while work goes on; the zero value shows nothing.
type bar struct {
	done, total atomic.Uint64
	stop        chan struct{}
	shown       sync.WaitGroup
}

// update says how much has been done.
func (b *bar) update(done, total uint64) {
	b.total.Store(total)
	b.done.Store(done)
}

// finish takes it away.
func (b *bar) finish() {
	if b.stop != nil {
		close(b.stop)
		b.shown.Wait()
	}
}

func showWorking(to io.Writer, what string, after time.Duration) *bar {
	b := &bar{stop: make(chan struct{})}
	b.shown.Go(func() {
		select {
		case <-b.stop:
			return
		case <-time.After(after):
		}
		b.show(to, what)
	})
	return b
}

func (b *bar) show(to io.Writer, what string) {
	// As long as nobody says how much there is to do, it is the elapsed time that tells.
	shown := progressbar.NewOptions64(-1,
		progressbar.OptionSetWriter(to),
		progressbar.OptionSetDescription(escapeName(what)),
		progressbar.OptionSpinnerType(14),
		// Without a goroutine of its own, which might write once more after the end.
		progressbar.OptionSetSpinnerChangeInterval(0),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionShowBytes(true),
		progressbar.OptionClearOnFinish(),
	)
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		if total := b.total.Load(); total > 0 {
			shown.ChangeMax64(int64(total))
			_ = shown.Set64(int64(min(b.done.Load(), total-1)))
		} else {
			_ = shown.Add(1)
		}
		select {
		case <-b.stop:
			_ = shown.Clear()
			return
		case <-tick.C:
		}
	}
}
