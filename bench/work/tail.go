//go:build linux

package work

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// tail is W9: Zipfian updates, one a commit, for long, so that whatever goes on in the background
// meets them. The contestants run one after the other, and each has the machine for itself.
func tail(r *Run) error {
	keys := uint32(r.pick(1_000_000, 50_000))
	draw := peers.NewZipfian(keys)
	for _, g := range groups {
		t := report.Table{Workload: "W9", Case: "Zipfian updates, " + g.name, Unit: "µs an update",
			Reference: g.reference, Floor: map[string]string{durable: floorSync,
				fastest: floorKill}[g.reference],
			Notes: fmt.Sprintf("Each contestant for %v, alone.", r.Tail)}
		for _, p := range peers.All() {
			if !r.Peer(p.Name) || !g.fits(p) || p.Why() != nil || p.CopyBased {
				continue
			}
			all, err := r.enter(peers.Options{Keys: keys},
				func(q peers.Peer) bool { return q.Name == p.Name })
			if err != nil {
				return err
			}
			r.Step(fmt.Sprintf("W9, %s, for %v", p.Name, r.Tail))
			c := all[0]
			random, e := rand.New(rand.NewPCG(9, 9)), new(peers.Entry)
			for end := time.Now().Add(r.Tail); time.Now().Before(end) && c.err == nil; {
				c.measured(100, func(i int) error {
					key := draw.Next(random)
					e.Key, e.Value = peers.KeyOf(key), peers.ValueOf(key, uint32(i))
					return c.store.Put(e)
				})
			}
			t.Rows = append(t.Rows, rows(all)...)
			if err := leave(all); err != nil {
				return err
			}
		}
		r.Tables = append(r.Tables, t)
	}
	return nil
}
