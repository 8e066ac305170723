package realguests

import (
	"testing"

	"github.com/mmrun/mmrun"
)

// forEach runs a test for each guest that is there.
func forEach(t *testing.T, test func(t *testing.T, g *guest, wasm []byte, want []step)) {
	for _, g := range allGuests() {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			wasm := g.wasm(t)
			test(t, g, wasm, newTwin(t, g, wasm).life(t))
		})
	}
}

// compare holds what children have committed against the life of the twin.
func compare(t *testing.T, got, want []step) {
	t.Helper()
	for _, s := range got {
		w := want[s.Event-1]
		if s.Before != w.Before {
			t.Errorf("event %d began with state %.12s, the twin's was %.12s", s.Event, s.Before,
				w.Before)
		}
		if s.Answer != w.Answer {
			t.Errorf("event %d answered %q, the twin %q", s.Event, s.Answer, w.Answer)
		}
		if s.After != w.After {
			t.Errorf("event %d left state %.12s, the twin's was %.12s", s.Event, s.After, w.After)
		}
		if t.Failed() {
			t.FailNow()
		}
	}
}

func TestKillInsideEventsResumesByteForByte(t *testing.T) {
	forEach(t, func(t *testing.T, g *guest, wasm []byte, want []step) {
		f := newFamily(t, g, wasm, mmrun.Atomic)
		n := uint64(len(want))
		next := uint64(1)
		for _, dieAt := range []uint64{2, n / 3, n / 2, n/2 + 1, n - 1} {
			if dieAt < next {
				continue
			}
			steps, status := f.run(dieAt, 0)
			if status != -1 || uint64(len(steps)) != dieAt-next {
				t.Fatalf("the child that should die in event %d did events %d to %d, and its "+
					"status is %d",
					dieAt, next, next+uint64(len(steps))-1, status)
			}
			compare(t, steps, want)
			next = dieAt
		}
		steps, status := f.run(0, 0)
		if status != 0 || uint64(len(steps)) != n-next+1 || steps[0].Event != next {
			t.Fatalf("the last child did %d events, the first of them %d, and its status is %d",
				len(steps), next, status)
		}
		compare(t, steps, want)
	})
}

func TestKillBetweenEventsResumesByteForByte(t *testing.T) {
	for _, mode := range []mmrun.Mode{mmrun.Atomic, mmrun.Continuous} {
		t.Run(mode.String(), func(t *testing.T) {
			forEach(t, func(t *testing.T, g *guest, wasm []byte, want []step) {
				f := newFamily(t, g, wasm, mode)
				var all []step
				for _, killAfter := range []uint64{1, uint64(len(want)) / 2, 0} {
					steps, _ := f.run(0, killAfter)
					all = append(all, steps...)
				}
				if len(all) != len(want) || all[len(all)-1].Event != uint64(len(want)) {
					t.Fatalf("the children did %d events, there are %d", len(all), len(want))
				}
				compare(t, all, want)
			})
		})
	}
}

func TestKillInsideEventIsNoticedInContinuousMode(t *testing.T) {
	forEach(t, func(t *testing.T, g *guest, wasm []byte, want []step) {
		f := newFamily(t, g, wasm, mmrun.Continuous)
		f.run(uint64(len(want))/2, 0)
		if steps, status := f.run(0, 0); len(steps) > 0 || status != tornStatus {
			t.Errorf("the next child did %d events and its status is %d, want none and %d (torn)",
				len(steps), status, tornStatus)
		}
	})
}
