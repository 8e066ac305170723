package engine

import (
	"strings"
	"testing"
	"time"
)

// events lets a meter see n events, all of which take guest and rest.
func events(m *meter, clock *time.Duration, n int, guest, rest time.Duration,
	changes int) (kept []byte) {
	for range n {
		m.begin()
		*clock += guest
		m.collecting()
		if c, due := m.due(); due {
			kept = c.Bytes
		}
		*clock += rest
		m.committed(changes)
	}
	return kept
}

// After its first thousand events a state knows what they cost, estimates the other tracker, tries
// it if that promises something, and stays with what was cheaper.
func TestAutoTakesWhatEventsHaveShown(t *testing.T) {
	const us = time.Microsecond
	auto := &Options{Tracker: Auto}
	for _, test := range []struct {
		name                      string
		guest, kernelRest         time.Duration
		barrierGuest, barrierRest time.Duration
		changes                   int
		tries, stays              bool
	}{
		{"a hot page", 100, 1100, 120, 500, 1, true, true},
		{"random pages of a large memory", us, 40 * us, 2 * us, 3 * us, 8, true, true},
		{"long events", 100 * us, us, 130 * us, us, 1, false, false},
		{"the estimate was wrong", 100, 1100, 900, 500, 1, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if barrier, why := auto.chosen(nil, false); barrier ||
				!strings.Contains(why, "nothing") {
				t.Fatalf("at first: %v, %s", barrier, why)
			}
			var clock time.Duration
			now := func() time.Duration { return clock }
			kept := events(newMeter(now, nil, false), &clock, 1100, test.guest, test.kernelRest,
				test.changes)
			barrier, why := auto.chosen(kept, false)
			if barrier != test.tries {
				t.Fatalf("after the first thousand: %v, %s", barrier, why)
			}
			if !barrier {
				return
			}
			kept = events(newMeter(now, kept, true), &clock, 1100, test.barrierGuest,
				test.barrierRest,
				test.changes)
			if barrier, why = auto.chosen(kept, false); barrier != test.stays {
				t.Fatalf("after a thousand with the barrier: %v, %s", barrier, why)
			}
		})
	}
	if barrier, _ := auto.chosen((costs{barrier: seen{events: 100, total: 1}}).encode(),
		true); barrier {
		t.Error("a continuous state has no use for the barrier")
	}
}

// A hint that is not one is none.
func TestCostsOfAnyBytes(t *testing.T) {
	for _, b := range [][]byte{nil, {1}, make([]byte, costsLength),
		[]byte(strings.Repeat("\xff", costsLength))} {
		if c := decodeCosts(b); c != (costs{}) {
			t.Errorf("%x: %+v", b, c)
		}
	}
}
