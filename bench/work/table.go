//go:build linux

package work

import (
	"fmt"
	"math/rand/v2"

	"github.com/mmrun/mmrun/bench/peers"
	"github.com/mmrun/mmrun/bench/report"
)

// mixOf is what share of the operations of a workload reads, writes, or does both. They are YCSB's.
type mixOf struct {
	name              string
	reads, readsFirst float64 // shares: reads alone, and reads before the write
	batch             int     // writes a commit
}

var mixes = []mixOf{
	{name: "updates", batch: 1},
	{name: "updates, 100 a commit", batch: 100},
	{name: "YCSB A (half reads, half updates)", reads: 0.5, batch: 1},
	{name: "YCSB B (95 % reads)", reads: 0.95, batch: 1},
	{name: "YCSB C (reads)", reads: 1, batch: 1},
	{name: "YCSB F (half reads, half read, change, write)", reads: 0.5, readsFirst: 0.5, batch: 1},
}

// operation is one of a mix.
type operation struct {
	key         uint32
	read, write bool
}

// versions is the truth: how often each key has been written.
type versions []uint32

// table is W2.
func table(r *Run) error {
	keys := uint32(r.pick(1_000_000, 50_000))
	draws := []struct {
		name string
		peers.Draw
	}{{"uniform", peers.Uniform(keys)}, {"Zipfian", peers.NewZipfian(keys)}}
	for _, g := range groups {
		all, err := r.enter(peers.Options{Keys: keys}, func(p peers.Peer) bool {
			// A copy of the whole memory after each operation is shown by W1 and W3.
			return g.fits(p) && !p.CopyBased
		})
		if err != nil {
			return err
		}
		load := report.Table{Workload: "W2", Case: "loading, " + g.name, Unit: "s",
			Reference: g.reference, Notes: fmt.Sprintf("%d keys.", keys)}
		for _, c := range all {
			load.Rows = append(load.Rows, report.Row{Name: c.name, Safety: c.row.Safety,
				Samples: []float64{c.loaded.Seconds()}})
		}
		r.Tables = append(r.Tables, load)
		truth := make(versions, keys)
		seed := uint64(0)
		for _, mix := range mixes {
			for _, draw := range draws {
				name := fmt.Sprintf("%s, %s, %s", mix.name, draw.name, g.name)
				r.Step("W2, " + name)
				n := r.pick(1000, 300)
				if g.reference == durable {
					n = r.pick(60, 20)
				}
				if mix.batch > 1 {
					n = max(n, 2*mix.batch)
				}
				rounds := r.rounds(15)
				for round := range rounds {
					seed++
					ops := mix.operations(draw, seed, n)
					for i := range all {
						c := all[(i+round)%len(all)]
						c.do(ops, truth, mix.batch)
					}
					for _, op := range ops {
						if op.write {
							truth[op.key]++
						}
					}
				}
				r.Tables = append(r.Tables, report.Table{Workload: "W2", Case: name,
					Unit: map[bool]string{true: "µs a commit",
						false: "µs an operation"}[mix.batch > 1], Reference: g.reference,
					Floor: map[string]string{durable: floorSync, fastest: floorKill}[g.reference],
					Rows:  rows(all)})
			}
		}
		r.Step("W2: comparing all keys")
		for _, c := range all {
			if err := c.holds(truth); err != nil {
				return fmt.Errorf("%s gives a wrong answer, so there is no report: %w", c.name, err)
			}
		}
		if err := leave(all); err != nil {
			return err
		}
	}
	return nil
}

func (m mixOf) operations(draw peers.Draw, seed uint64, n int) []operation {
	random := rand.New(rand.NewPCG(seed, 1))
	ops := make([]operation, n)
	for i := range ops {
		op := &ops[i]
		op.key = draw.Next(random)
		switch u := random.Float64(); {
		case u < m.reads:
			op.read = true
		case u < m.reads+m.readsFirst:
			op.read, op.write = true, true
		default:
			op.write = true
		}
	}
	return ops
}

// do runs the operations, each timed, and checks what it reads. Writes are prepared before, so that
// making values is nobody's cost.
func (c *contestant) do(ops []operation, truth versions, batch int) {
	own := make(map[uint32]uint32, len(ops)) // versions that this slice has made
	entries := make([]peers.Entry, len(ops))
	want := make([]uint32, len(ops))
	for i, op := range ops {
		version, ok := own[op.key]
		if !ok {
			version = truth[op.key]
		}
		want[i] = version
		entries[i].Key = peers.KeyOf(op.key)
		if op.write {
			own[op.key] = version + 1
			entries[i].Value = peers.ValueOf(op.key, version+1)
		}
	}
	if batch > 1 {
		c.measured(len(ops)/batch, func(i int) error {
			return c.store.PutAll(entries[i*batch:][:batch])
		})
		return
	}
	var v peers.Value
	c.measured(len(ops), func(i int) error {
		if ops[i].read {
			if err := c.store.Get(&entries[i].Key, &v); err != nil {
				return err
			}
			if v.Version() != want[i] {
				return fmt.Errorf("read version %d of key %d instead of %d", v.Version(),
					ops[i].key,
					want[i])
			}
		}
		if !ops[i].write {
			return nil
		}
		return c.store.Put(&entries[i])
	})
}

// holds compares each key with the truth.
func (c *contestant) holds(truth versions) error {
	if c.err != nil {
		return nil
	}
	var v peers.Value
	for i := range uint32(len(truth)) {
		key := peers.KeyOf(i)
		if err := c.store.Get(&key, &v); err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if v != peers.ValueOf(i, truth[i]) {
			return fmt.Errorf("key %d: version %d instead of %d", i, v.Version(), truth[i])
		}
	}
	return nil
}

// queries is W4: reads alone, from one goroutine.
func queries(r *Run) error {
	keys := uint32(r.pick(1_000_000, 50_000))
	all, err := r.enter(peers.Options{Keys: keys}, func(p peers.Peer) bool {
		return !p.Floor && (!p.CopyBased || p.Name == "copy, rename")
	})
	if err != nil {
		return err
	}
	r.Step("W4, reads")
	draw := peers.Uniform(keys)
	turns(all, r.rounds(15), func(c *contestant, round int) {
		random := rand.New(rand.NewPCG(uint64(round), 4))
		n := r.pick(2000, 500)
		ks := make([]peers.Key, n)
		for i := range ks {
			ks[i] = peers.KeyOf(draw.Next(random))
		}
		var v peers.Value
		c.measured(n, func(i int) error { return c.store.Get(&ks[i], &v) })
	})
	r.Tables = append(r.Tables, report.Table{Workload: "W4", Case: "one value, uniform",
		Unit: "µs a query", Reference: fastest, Rows: rows(all)})
	return leave(all)
}
