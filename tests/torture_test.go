package tests

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/crash"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

var (
	crashKills = flag.Int("crash.kills", 1000, "how many processes TestTorture kills")
	crashSeed  = flag.Uint64("crash.seed", 0, "seed of the crash tests; 0 for one that is printed")
)

func TestMain(m *testing.M) {
	crash.RunChild()
	code := m.Run()
	if dir, err := compiledDir(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// compiledDir is where compiled guests are kept, so that processes which live for milliseconds do
// not compile.
var compiledDir = sync.OnceValues(func() (string, error) {
	return os.MkdirTemp("",
		"mmrun-compiled-")
})

// seed is printed, so that a failure can be tried again. That repeats the events, and when a kill
// was planned for; not at which instruction it struck.
func seed(t testing.TB) uint64 {
	s := *crashSeed
	if s == 0 {
		s = crash.RandomSeed()
	}
	t.Logf("seed: -crash.seed=%d", s)
	return s
}

// tortures are the states that TestTorture kills processes over. The wal of 128 KiB is
// switched and folded all the time.
var tortures = []struct {
	guest  string
	sync   string
	wal    int64
	onDisk bool // else in memory, where syncs cost nothing and more kills hit the rest
	share  int  // of the kills, in percent
	events int  // the most in the life of a child
}{
	{"cmap", "never", mmrun.MinWALSize, false, 15, 2000},
	{"cmap", "5ms", mmrun.DefaultWALSize, true, 10, 2000},
	{"btree", "never", mmrun.MinWALSize, true, 10, 2000},
	{"btree", "always", mmrun.MinWALSize, true, 5, 100},
	{"stores", "never", mmrun.MinWALSize, false, 21, 600},
	{"stores", "never", mmrun.DefaultWALSize, false, 10, 600},
	{"types", "never", mmrun.MinWALSize, false, 10, 2000},
	{"types", "1ms", mmrun.MinWALSize, true, 5, 2000},
	{"swap", "never", mmrun.MinWALSize, false, 10, 60},
	{"gomap", "never", mmrun.MinWALSize, false, 4, 100},
}

// Whatever instant an atomic state's process is killed at - inside an event, a commit, a
// checkpoint, while it opens, recovers or closes the state - the state is, byte for byte, that of
// the last acknowledged event or of the one in flight.
func TestTorture(t *testing.T) {
	kills := *crashKills
	if testing.Short() {
		kills = min(kills, 100)
	}
	seed := seed(t)
	var mu sync.Mutex
	var totals crash.Totals
	t.Run("lanes", func(t *testing.T) {
		for i, x := range tortures {
			// Each with the other tracker the next time.
			tracker := []mmrun.Tracker{mmrun.Kernel, mmrun.Barrier}[(seed+uint64(i))%2]
			name := fmt.Sprintf("%s,sync=%s,wal=%dKiB,disk=%t,%v", x.guest, x.sync, x.wal>>10,
				x.onDisk, tracker)
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				var wasm []byte
				if x.guest == "gomap" {
					wasm = guests.Go(t, x.guest)
				} else {
					wasm = guests.Load(t, x.guest)
				}
				lane := newLane(t, x.onDisk, wasm, crash.Child{Guest: x.guest, Seed: seed +
					uint64(i), Mode: mmrun.Atomic,
					Sync: x.sync, WALSize: x.wal, Tracker: tracker})
				planner := crash.Planner{Rand: rand.New(rand.NewPCG(seed, uint64(i))),
					Events: x.events}
				for range kills * x.share / 100 {
					out, err := lane.Round(planner.Next(lane))
					if err != nil {
						t.Fatalf("kill %d: %v", lane.Totals.Kills, err)
					}
					planner.Learn(out)
				}
				t.Log(lane.Totals)
				mu.Lock()
				defer mu.Unlock()
				totals.Add(lane.Totals)
			})
		}
	})
	t.Log(totals)
	if totals.Kills >= 1000 && (totals.Recovery < 50 || totals.Kept < 20 || totals.Lost < 20 ||
		totals.Checkpoint < 10 || totals.Closing < 10) {
		t.Error("too few kills have hit what they should hit")
	}
}

// newLane makes a lane on the disk or in memory.
func newLane(t *testing.T, onDisk bool, wasm []byte, c crash.Child) *crash.Lane {
	t.Helper()
	if onDisk {
		return newLaneIn(t, t.TempDir(), wasm, c)
	}
	return newLaneIn(t, scratch.Dir(t), wasm, c)
}

func newLaneIn(t *testing.T, dir string, wasm []byte, c crash.Child) *crash.Lane {
	t.Helper()
	var err error
	if c.CacheDir, err = compiledDir(); err != nil {
		t.Fatal(err)
	}
	lane, err := crash.NewLane(ctx, dir, scratch.Dir(t), wasm, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lane.Close(); err != nil {
			t.Error(err)
		}
	})
	return lane
}
