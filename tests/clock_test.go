package tests

import (
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// Whatever machine the state is resumed on, and whether it was closed or killed, the guest's clock
// never runs back, and never jumps by the uptime of a machine.
func TestMonotonicClockGoesOn(t *testing.T) {
	rt, dir := wasiRuntime(t), filepath.Join(t.TempDir(), "s")
	wasm := guests.Load(t, "clock")
	r := rand.New(rand.NewPCG(seed(t), 9))
	begun := time.Now()
	var last int64
	for round := range 30 {
		uptime := time.Duration(r.Int64N(int64(1000 * time.Hour)))
		start := time.Now()
		machine := func(o *engine.Options) error {
			o.Now = func() time.Duration { return uptime + time.Since(start) }
			return nil
		}
		in, err := openSeen(rt, dir, wasm, mmrun.WithClock(mmrun.CountDowntime), machine)
		if err != nil {
			t.Fatal(err)
		}
		for range r.IntN(5) {
			now := int64(call64(t, in, "now"))
			if since := time.Since(begun); now < last || time.Duration(now) > since+time.Minute {
				t.Fatalf("round %d: %v, before %v, %v after the begin", round, time.Duration(now),
					time.Duration(last), since)
			}
			last = now
		}
		_ = in.View(ctx, func(tx *mmrun.Tx) error {
			_, err := tx.Call(ctx, "now")
			return err
		})
		if worst := int64(call64(t, in, "worst")); worst < 0 {
			t.Fatalf("round %d: the clock ran back by %v", round, time.Duration(worst))
		}
		if r.IntN(2) == 0 {
			abandon(in)
		} else {
			closeInstance(t, in)
		}
	}
}
