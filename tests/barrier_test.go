package tests

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/guests"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// Whatever a guest and its host do, the state is the same with each tracker: two instances get the
// same events, one of which some fail and some are queries, and one of them tells what it writes.
// Both are closed, opened and recovered meanwhile, with the tracker of the other one, too.
func TestTrackersGiveTheSameState(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 600
	}
	for _, guest := range []string{"stores", "cmap", "btree", "rust_kv"} {
		t.Run(guest, func(t *testing.T) {
			root := scratch.Dir(t)
			trackers := []mmrun.Tracker{mmrun.Kernel, mmrun.Barrier}
			rt, wasm := newRuntime(t), guests.Load(t, guest)
			var err error
			var ins [2]*mmrun.Instance
			dir := func(i int) string { return filepath.Join(root, fmt.Sprint(i)) }
			openOne := func(i, tracker int) {
				t.Helper()
				if ins[i], err = openSeen(rt, dir(i), wasm, mmrun.WithTracker(trackers[tracker]),
					mmrun.WithWALSize(mmrun.MinWALSize)); err != nil {
					t.Fatal(err)
				}
				if got := ins[i].Stats().Tracker; tracker == 1 && got != "barrier" {
					t.Fatalf("the tracker is %s", got)
				}
			}
			for i := range ins {
				openOne(i, i)
			}
			r := rand.New(rand.NewPCG(seed(t), 3))
			for round := range rounds {
				step := randomStep(guest, r)
				var results [2]string
				for i, in := range ins {
					results[i] = step(in)
				}
				if results[0] != results[1] {
					t.Fatalf("round %d: %s and %s", round, results[0], results[1])
				}
				switch r.IntN(60) {
				case 0:
					for i := range ins {
						abandon(ins[i])
						openOne(i, r.IntN(2)*(1-i)+i) // the second one always tells
					}
				case 1:
					for i := range ins {
						closeInstance(t, ins[i])
						openOne(i, i)
					}
				case 2:
					for _, in := range ins {
						if err := in.Checkpoint(ctx); err != nil {
							t.Fatal(err)
						}
					}
				}
				if round%16 == 0 {
					sameMemory(t, ins, round)
				}
			}
			sameMemory(t, ins, rounds)
			// What recovery finds is what was there.
			for i := range ins {
				abandon(ins[i])
				openOne(i, i)
			}
			sameMemory(t, ins, rounds)
			for i := range ins {
				closeInstance(t, ins[i])
			}
		})
	}
}

func sameMemory(t *testing.T, ins [2]*mmrun.Instance, round int) {
	t.Helper()
	var images [2][]byte
	for i, in := range ins {
		s := storeOf(in)
		if err := s.Enter(ctx); err != nil {
			t.Fatal(err)
		}
		images[i] = s.Memory().Bytes()
		defer s.Leave()
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Fatalf("round %d: other memories, of %d and %d bytes", round, len(images[0]),
			len(images[1]))
	}
}

// randomStep is an event, the same for each instance that it is given.
func randomStep(guest string, r *rand.Rand) func(in *mmrun.Instance) string {
	n := r.Uint64N(1 << 16)
	type one struct {
		name   string
		params []uint64
	}
	calls := map[string][]one{
		"stores": {{"one", []uint64{n &^ 7, n}}, {"touch", []uint64{0, 1, n % 16, n}},
			{"fill", []uint64{n, n % 9000, n}}, {"grow", []uint64{n % 2}}},
		"cmap":  {{"put", []uint64{n % 500, n}}, {"get", []uint64{n % 500}}},
		"btree": {{"put", []uint64{n % 500, n}}, {"get", []uint64{n % 500}}},
		"rust_kv": {{"put", []uint64{n % 500, n}}, {"del", []uint64{n % 500}},
			{"get", []uint64{n % 500}}},
	}[guest]
	var chosen []one
	for range 1 + r.IntN(3) {
		chosen = append(chosen, calls[r.IntN(len(calls))])
	}
	kind, at := r.IntN(12), r.IntN(60_000)
	body := func(tx *mmrun.Tx) error {
		for _, c := range chosen {
			if _, err := tx.Call(ctx, c.name, c.params...); err != nil {
				return err
			}
		}
		if guest != "stores" {
			return nil
		}
		switch kind { // the host writes, too
		case 0:
			return tx.WriteBytes(uint32(at), []byte("written by the host"))
		case 1:
			tx.Memory().WriteUint64Le(uint32(at), n)
		case 2:
			tx.Memory().WriteByte(uint32(at), byte(n))
		case 3:
			b, _ := tx.Memory().Read(uint32(at), 100)
			b[50] ^= 1
		case 4:
			tx.Module().Memory().WriteUint32Le(uint32(at), uint32(n))
		}
		return nil
	}
	switch r.IntN(8) {
	case 0:
		return func(in *mmrun.Instance) string { return fmt.Sprint(in.View(ctx, body)) }
	case 1:
		return func(in *mmrun.Instance) string {
			return fmt.Sprint(in.Update(ctx, func(tx *mmrun.Tx) error {
				if err := body(tx); err != nil {
					return err
				}
				return errEnough
			}) != nil)
		}
	case 2:
		return func(in *mmrun.Instance) string {
			c := chosen[0]
			results, err := in.Call(ctx, c.name, c.params...)
			return fmt.Sprint(results, err != nil)
		}
	}
	return func(in *mmrun.Instance) string { return fmt.Sprint(in.Update(ctx, body) != nil) }
}

var errEnough = fmt.Errorf("rolled back on purpose")

// A host function writes the guest's memory behind the Tx. What it tells is taken; if it does not
// tell, all of the memory is compared. Nothing is missed either way, and Stats say which it was.
func TestHostFunctionsTellWhatTheyWrite(t *testing.T) {
	for _, tells := range []bool{false, true} {
		t.Run(fmt.Sprint("tells ", tells), func(t *testing.T) {
			rt := newRuntime(t)
			_, err := rt.NewHostModuleBuilder("env").NewFunctionBuilder().
				WithFunc(func(ctx context.Context, m api.Module, ptr, n uint32) {
					if tells {
						mmrun.MarkWritten(ctx, ptr, n)
						mmrun.MarkWritten(ctx, ptr+9000, 1)
					}
					m.Memory().Write(ptr, bytes.Repeat([]byte{7}, int(n)))
					m.Memory().WriteByte(ptr+9000, 8)
				}).Export("mutate").
				NewFunctionBuilder().WithFunc(func() {}).Export("fail").Instantiate(ctx)
			if err != nil {
				t.Fatal(err)
			}
			dir, wasm := filepath.Join(t.TempDir(), "s"), guests.Load(t, "hostmut")
			in, err := openSeen(rt, dir, wasm, mmrun.WithTracker(mmrun.Barrier))
			if err != nil {
				t.Fatal(err)
			}
			for i := range uint64(5) {
				call(t, in, "mutate", 4096*i+4000, 200) // over the end of a page
			}
			want := uint64(5)
			if tells {
				want = 0
			}
			if got := in.Stats().ComparedAll; got != want {
				t.Errorf("%d events compared all pages, want %d", got, want)
			}
			abandon(in) // what was not found is gone
			in = open(t, rt, dir, nil)
			for i := range uint64(5) {
				at := 4096*i + 4000
				for _, want := range [][2]uint64{{at, 7}, {at + 199, 7}, {at + 9000, 8}} {
					// A later call may have written over it.
					if got := call(t, in, "load", want[0]); got != want[1] && got != 7 {
						t.Errorf("%d at %d, want %d", got, want[0], want[1])
					}
				}
			}
			closeInstance(t, in)
		})
	}
}
