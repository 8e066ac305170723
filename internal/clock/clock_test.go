package clock

import (
	"math"
	"testing"
	"time"
)

// The guest's clock never runs back and never jumps by another machine's uptime.
func TestClockGoesOn(t *testing.T) {
	mono, wall := 5*time.Hour, time.Unix(1_000_000, 0)
	machine := func() *Clock {
		return New(func() time.Duration { return mono }, func() time.Time { return wall })
	}
	pass := func(d time.Duration) { mono, wall = mono+d, wall.Add(d) }
	c := machine()
	if got := c.Read(); got != 0 {
		t.Fatal(got)
	}
	pass(time.Second)
	if got := c.Read(); got != int64(time.Second) {
		t.Fatal(got)
	}
	section, ok := c.Changed(nil)
	if _, again := c.Changed(nil); !ok || again {
		t.Fatal(ok, again)
	}
	for _, test := range []struct {
		name  string
		mono  time.Duration // of the next machine
		down  time.Duration // by the wall clock
		count bool
		want  time.Duration
	}{
		{"the same machine", mono + time.Minute, time.Minute, true, time.Second + time.Minute},
		{"another boot", time.Second, time.Hour, true, time.Second + time.Hour},
		{"a machine that has run for long", 9000 * time.Hour, time.Hour, true, time.Second +
			time.Hour},
		{"not counted", time.Second, time.Hour, false, time.Second},
		{"a wall clock that went back", time.Second, -time.Hour, true, time.Second},
		{"a wall clock that is wrong", time.Second, 100 * 366 * 24 * time.Hour, true,
			time.Second + MostDowntime},
	} {
		oldMono, oldWall := mono, wall
		mono, wall = test.mono, wall.Add(test.down)
		c := machine()
		c.Resume(section, test.count)
		if got := c.Read(); got != int64(test.want) {
			t.Errorf("%s: %v, want %v", test.name, time.Duration(got), test.want)
		}
		mono, wall = oldMono, oldWall
	}
	for _, b := range [][]byte{nil, {1}, make([]byte, length), append([]byte{1}, math.MaxUint8)} {
		c := machine()
		if c.Resume(b, true); c.Read() != 0 {
			t.Errorf("%x: %d", b, c.Read())
		}
	}
}
