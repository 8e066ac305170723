package peers_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/bench/peers"
)

// Every contestant does the same: it counts, keeps a table, and has all of it when it is opened
// again. One that does not has no figure.
func TestContestantsKeepTheSame(t *testing.T) {
	for _, p := range peers.All() {
		t.Run(p.Name, func(t *testing.T) {
			if err := p.Why(); err != nil {
				t.Skip(err)
			}
			const keys = 3000
			o := peers.Options{Dir: t.TempDir(), Keys: keys}
			s := open(t, p, o)
			must(t, s.Load(keys))
			for range 3 {
				must(t, s.Increment(0))
			}
			e := peers.Entry{Key: peers.KeyOf(7), Value: peers.ValueOf(7, 1)}
			must(t, s.Put(&e))
			var batch []peers.Entry
			for i := range uint32(100) {
				batch = append(batch, peers.Entry{Key: peers.KeyOf(10 + i),
					Value: peers.ValueOf(10+i, 2)})
			}
			must(t, s.PutAll(batch))
			look := func() {
				t.Helper()
				for i := range uint32(keys) {
					version := uint32(0)
					switch {
					case i == 7:
						version = 1
					case i >= 10 && i < 110:
						version = 2
					}
					key := peers.KeyOf(i)
					var v peers.Value
					if err := s.Get(&key, &v); err != nil || v != peers.ValueOf(i, version) {
						t.Fatalf("key %d: version %d, want %d (%v)", i, v.Version(), version, err)
					}
				}
				if n, err := s.Count(0); err != nil || n != 3 {
					t.Errorf("counted %d, want 3 (%v)", n, err)
				}
			}
			look()
			absent := peers.KeyOf(keys + 5)
			if err := s.Get(&absent, new(peers.Value)); !errors.Is(err, peers.ErrNoKey) &&
				!p.Floor {
				t.Errorf("an absent key: %v", err)
			}
			must(t, s.Close())
			if p.Name == "plain wazero" || p.Name == "wasmtime copy, rename" {
				return // nothing is kept; the memory of the other one goes when it is collected
			}
			s = open(t, p, o)
			look()
			must(t, s.Close())
		})
	}
}

// One hash table and one B-tree give the same answers.
func TestOrderedTable(t *testing.T) {
	p, err := peers.ByName("plain wazero")
	must(t, err)
	s := open(t, p, peers.Options{Dir: filepath.Clean(t.TempDir()), Keys: 5000, Ordered: true})
	must(t, s.Load(5000))
	for i := range uint32(5000) {
		key := peers.KeyOf(i)
		var v peers.Value
		if err := s.Get(&key, &v); err != nil || v != peers.ValueOf(i, 0) {
			t.Fatalf("key %d: %v", i, err)
		}
	}
	must(t, s.Close())
}

// Zipf's law: the most frequent key takes about 1/zeta(n) of all draws, and all are in range.
func TestZipfianDrawsAFewKeysOften(t *testing.T) {
	const keys, draws = 1000, 200_000
	z, r := peers.NewZipfian(keys), newRand(1)
	seen := make([]int, keys)
	for range draws {
		seen[z.Next(r)]++
	}
	most := 0
	for _, n := range seen {
		most = max(most, n)
	}
	// zeta(1000) with theta 0.99 is 7.73.
	if share := float64(most) / draws; share < 0.11 || share > 0.16 {
		t.Errorf("the most frequent key takes %.3f of all draws, want about 0.13", share)
	}
}
