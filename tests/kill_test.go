package tests

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/crash"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// killRounds is the number of kills of each test below, for a test that asks for full of them.
func killRounds(full int) int {
	if testing.Short() {
		return full / 10
	}
	return full
}

// runKills kills children over one state, at the moments that plan gives, and returns what was hit.
func runKills(t *testing.T, rounds int, c crash.Child, plan func(*rand.Rand,
	*crash.Child) crash.Plan) crash.Totals {
	t.Helper()
	c.Seed = seed(t)
	c.Sync, c.WALSize = "never", mmrun.MinWALSize
	lane := newLane(t, false, guests.Load(t, c.Guest), c)
	r := rand.New(rand.NewPCG(c.Seed, 1))
	for range rounds {
		if _, err := lane.Round(plan(r, &lane.Child)); err != nil {
			t.Fatalf("kill %d: %v", lane.Totals.Kills, err)
		}
	}
	t.Log(lane.Totals)
	return lane.Totals
}

// A process that dies between two events loses nothing: the state is that of the last acknowledged
// one, whatever the mode.
func TestKillBetweenEventsLosesNothing(t *testing.T) {
	for _, mode := range modes {
		for _, guest := range []string{"counter", "cmap", "stores"} {
			t.Run(fmt.Sprintf("%v/%s", mode, guest), func(t *testing.T) {
				t.Parallel()
				rounds := killRounds(70)
				totals := runKills(t, rounds, crash.Child{Guest: guest, Mode: mode,
					OnlyCommits: true},
					func(r *rand.Rand, c *crash.Child) crash.Plan {
						c.PauseAfter = 1 + r.Uint64N(50)
						return crash.Plan{After: crash.Paused,
							Delay: time.Duration(r.IntN(1000)) * time.Microsecond}
					})
				if totals.Quiet != rounds || totals.Torn > 0 {
					t.Errorf("%d of %d kills hit a process between two events, %d states were torn",
						totals.Quiet, rounds, totals.Torn)
				}
			})
		}
	}
}

// A process that dies at any moment leaves, in continuous mode, either exactly the state of an
// event that ended, or one that is refused as torn.
func TestKillAtAnyMomentIsExactOrTorn(t *testing.T) {
	for _, guest := range []string{"counter", "cmap", "stores", "types", "swap"} {
		t.Run(guest, func(t *testing.T) {
			t.Parallel()
			totals := runKills(t, killRounds(60), crash.Child{Guest: guest, Mode: mmrun.Continuous,
				OnlyCommits: true},
				func(r *rand.Rand, c *crash.Child) crash.Plan {
					c.ActSeed = r.Uint64()
					c.Reopens, c.Syncs = r.IntN(3), r.IntN(20)
					if r.IntN(4) == 0 {
						return crash.Plan{After: crash.Opening,
							Delay: time.Duration(r.IntN(5000)) * time.Microsecond}
					}
					return crash.Plan{After: crash.Acked, Count: 1 + r.IntN(300),
						Delay: time.Duration(r.IntN(200)) * time.Microsecond}
				})
			if totals.Kills >= 60 && totals.Lost+totals.Kept == 0 {
				t.Error("no kill has left an exact state")
			}
		})
	}
}

// A process that dies inside an event leaves a torn state in continuous mode, and never resumes
// from it silently. In atomic mode it leaves the last commit.
func TestKillInsideEvent(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			rounds := killRounds(60)
			totals := runKills(t, rounds, crash.Child{Guest: "types", Mode: mode, OnlyCommits: true,
				Long: "host"},
				func(r *rand.Rand, c *crash.Child) crash.Plan {
					c.PauseAfter = 1 + r.Uint64N(20)
					return crash.Plan{After: crash.Inside,
						Delay: time.Duration(r.IntN(2000)) * time.Microsecond}
				})
			wantTorn, wantLost := 0, rounds
			if mode == mmrun.Continuous {
				wantTorn, wantLost = rounds, 0
			}
			if totals.Torn != wantTorn || totals.Lost != wantLost {
				t.Errorf("%d states were torn, want %d; %d events were lost, want %d", totals.Torn,
					wantTorn, totals.Lost, wantLost)
			}
		})
	}
}

// The same with guest code that stores all the time and never returns. It is announced just before
// it begins, so that the odd kill comes before its first store.
func TestKillInsideGuestLoop(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			rounds := killRounds(30)
			totals := runKills(t, rounds, crash.Child{Guest: "types", Mode: mode, OnlyCommits: true,
				Long: "spin"},
				func(r *rand.Rand, c *crash.Child) crash.Plan {
					c.PauseAfter = 1 + r.Uint64N(20)
					return crash.Plan{After: crash.Looping,
						Delay: time.Duration(r.IntN(3000)) * time.Microsecond}
				})
			switch {
			case mode == mmrun.Atomic && totals.Lost != rounds:
				t.Errorf("%d of %d events were rolled back", totals.Lost, rounds)
			case mode == mmrun.Continuous && totals.Torn == 0:
				t.Error("no state was torn")
			}
		})
	}
}

// A process that dies while it creates a state leaves a whole one or none at all, and what it
// leaves behind is gone after the next attempt.
func TestKillWhileCreating(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			parent := t.TempDir()
			lane := newLaneIn(t, parent, guests.Load(t, "cmap"),
				crash.Child{Guest: "cmap", Mode: mode, OnlyCommits: true,
					Seed: seed(t), Sync: "never", WALSize: mmrun.MinWALSize})
			r := rand.New(rand.NewPCG(lane.Child.Seed, 1))
			var took time.Duration
			plan := crash.Plan{After: crash.Opened} // the first is to learn how long it takes
			for range killRounds(60) {
				out, err := lane.Round(plan)
				if err != nil {
					t.Fatalf("kill %d: %v", lane.Totals.Kills, err)
				}
				if d, ok := out.Took[crash.Opening]; ok {
					took = d
				}
				plan = crash.Plan{After: crash.Opening,
					Delay: time.Duration(r.Float64() * 1.2 * float64(took))}
				if files, err := filepath.Glob(filepath.Join(parent, "*", "memory")); err != nil ||
					len(files) > 2 {
					t.Fatalf("there are %v where at most a state and an attempt should be (%v)",
						files, err)
				}
				if err := lane.Restart(); err != nil {
					t.Fatal(err)
				}
			}
			t.Log(lane.Totals)
			if lane.Totals.Kills >= 60 && lane.Totals.Creating-lane.Totals.Created == 0 {
				t.Error("no kill came while the state was being created")
			}
		})
	}
}
