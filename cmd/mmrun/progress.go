package main

import (
	"io"
	"sync"
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
func (a *app) working(what string) (finished func()) {
	if !isTerminal(a.errOut) {
		return func() {}
	}
	return showWorking(a.errOut, what, progressAfter)
}

func showWorking(to io.Writer, what string, after time.Duration) (finished func()) {
	stop := make(chan struct{})
	var shown sync.WaitGroup
	shown.Go(func() {
		select {
		case <-stop:
			return
		case <-time.After(after):
		}
		// Nobody says how much there is to do: it is the elapsed time that tells.
		bar := progressbar.NewOptions(-1,
			progressbar.OptionSetWriter(to),
			progressbar.OptionSetDescription(escapeName(what)),
			progressbar.OptionSpinnerType(14),
			// Without a goroutine of its own, which might write once more after the end.
			progressbar.OptionSetSpinnerChangeInterval(0),
			progressbar.OptionSetElapsedTime(true),
			progressbar.OptionClearOnFinish(),
		)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			_ = bar.Add(1)
			select {
			case <-stop:
				_ = bar.Clear()
				return
			case <-tick.C:
			}
		}
	})
	return func() {
		close(stop)
		shown.Wait()
	}
}
