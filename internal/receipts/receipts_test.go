package receipts

import (
	"bytes"
	"fmt"
	"testing"
)

// The newest receipts are found, also by who reads the bytes anew, and the bytes stay bounded.
func TestNewestReceiptsAreKept(t *testing.T) {
	for _, effect := range []int{0, 10, 3000, 900_000} {
		var section []byte
		table, err := Load(nil)
		if err != nil {
			t.Fatal(err)
		}
		written := 0
		const n = 5000
		rounds := n
		if effect > 1000 {
			rounds = n / 5
		}
		if effect > 100_000 {
			rounds = 20
		}
		for i := range rounds {
			r := Receipt{Key: fmt.Sprint("key ", i), Seq: uint64(i), Digest: Digest{byte(i)},
				Effect: bytes.Repeat([]byte{byte(i)}, effect)}
			if !Fits(r.Key, r.Effect) {
				t.Fatal("it does not fit")
			}
			b, appended := table.Plan(r)
			written += len(b)
			if appended {
				section = append(section, b...)
			} else {
				section = bytes.Clone(b)
			}
			table.Done()
			if len(section) > 2*MostBytes {
				t.Fatalf("%d bytes", len(section))
			}
		}
		again, err := Load(section)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range []*Table{table, again} {
			most := min(MostKept, rounds, MostBytes/(effect+64))
			for i := rounds - most; i < rounds; i++ {
				r, ok := table.Find(fmt.Sprint("key ", i))
				if !ok || r.Seq != uint64(i) || r.Digest[0] != byte(i) || len(r.Effect) != effect {
					t.Fatalf("%d of %d: %v", i, rounds, ok)
				}
			}
		}
		if limit := rounds * (effect + 50) * 3; written > limit {
			t.Errorf("%d receipts with effects of %d bytes wrote %d bytes, the limit is %d", rounds,
				effect, written, limit)
		}
	}
	if Fits("", make([]byte, MostBytes)) || Fits(string(make([]byte, MostKey+1)), nil) {
		t.Error("too large")
	}
}

// A plan whose commit did not succeed is forgotten.
func TestPlanWithoutACommit(t *testing.T) {
	table, _ := Load(nil)
	table.Plan(Receipt{Key: "a"})
	table.Plan(Receipt{Key: "b"})
	table.Done()
	_, a := table.Find("a")
	if _, b := table.Find("b"); a || !b {
		t.Error(a, b)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(encode(nil, &Receipt{Key: "key", Seq: 300, Effect: []byte("effect")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Load(b)
		if err == nil {
			for _, r := range table.all {
				table.Find(r.Key)
			}
		}
	})
}
