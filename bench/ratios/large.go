//go:build linux

package ratios

import (
	"fmt"
	"time"

	"github.com/mmrun/mmrun/bench/lab"
)

// largeEvent: one event that changes 1 GiB, and the memory that its commit takes beyond the
// pages that the guest itself has written.
func largeEvent(r *run) error {
	const mib = 1024
	s, err := lab.NewState(r.wasm, r.path("state"))
	if err != nil {
		return err
	}
	if err := lab.Prepare(s, mib+64, false); err != nil {
		return err
	}
	before, err := lab.CurrentUsage()
	if err != nil {
		return err
	}
	peak, stop, stopped := before, make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			now, err := lab.CurrentUsage()
			if err != nil {
				stopped <- err
				return
			}
			peak.Anon, peak.Heap = max(peak.Anon, now.Anon), max(peak.Heap, now.Heap)
			select {
			case <-stop:
				stopped <- nil
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	start := time.Now()
	if err := s.Setup("fill", 0, mib*lab.MiB, 0x5a); err != nil {
		return fmt.Errorf("event of 1 GiB: %w", err)
	}
	took := time.Since(start)
	close(stop)
	if err := <-stopped; err != nil {
		return err
	}
	after, err := lab.CurrentUsage()
	if err != nil {
		return err
	}
	if err := s.Settle(); err != nil {
		return err
	}
	for _, at := range []uint64{0, 512 * lab.MiB, mib*lab.MiB - 8} {
		results, err := s.Call(ctx, "load", at)
		if err != nil {
			return err
		}
		if results[0] != 0x5a5a5a5a5a5a5a5a {
			return fmt.Errorf("event of 1 GiB: after a reopen address %#x holds %#x", at,
				results[0])
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	const inMiB = 1 << 20
	extra := float64(peak.Anon-before.Anon)/inMiB - mib
	r.figure("an event that changes 1 GiB", "%s", duration(took.Seconds()))
	r.figure("its private memory: before, at the peak, after",
		"%d, %d, %d MiB (of which Go's heap: %d, %d, %d MiB)",
		before.Anon/inMiB, peak.Anon/inMiB, after.Anon/inMiB, before.Heap/inMiB, peak.Heap/inMiB,
		after.Heap/inMiB)
	r.atMost("an event that changes 1 GiB: memory beyond the guest's own 1024 MiB at the peak",
		extra, 256, " MiB")
	return nil
}
