package lab_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
)

// BenchmarkHistory is an event of states that keep no history, note their events, and keep a
// history, in turns within one run: medians of rounds of 1,000 events, checkpoints included.
func BenchmarkHistory(b *testing.B) {
	const events = 1000
	names := []string{"none", "notes", "history"}
	options := [][]mmrun.Option{nil, {mmrun.WithEventNotes()}, {mmrun.WithHistory("all")}}
	var event []func([]uint64) error
	var took [3][]time.Duration
	for _, opts := range options {
		s := prepared(b, newState(b, append(opts, mmrun.WithTracker(mmrun.Barrier))...), 16, true)
		event = append(event, s.Event("one"))
	}
	stack := make([]uint64, 2)
	for b.Loop() {
		for i := range event {
			start := time.Now()
			for v := range uint64(events) {
				stack[0], stack[1] = 8, v
				check(b, event[i](stack))
			}
			took[i] = append(took[i], time.Since(start))
		}
	}
	for i, t := range took {
		slices.Sort(t)
		b.ReportMetric(float64(t[len(t)/2])/events, names[i]+"-ns")
	}
}
