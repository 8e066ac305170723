package crash

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"
)

// rng makes one event. Everything about the event comes from it.
type rng struct {
	*mathrand.Rand
	bytes uint64 // size of the memory
	// onlyCommits: an event that may trap must be one that does not.
	onlyCommits bool
}

func (r rng) upTo(n int) uint64      { return uint64(r.IntN(n)) }
func (r rng) oneIn(n int) bool       { return r.IntN(n) == 0 }
func (r rng) page() uint64           { return r.Uint64N(r.bytes / 4096) }
func (r rng) address(len int) uint64 { return r.Uint64N(r.bytes-uint64(len)+1) &^ 7 }
func (r rng) data(most int) (b []byte) {
	b = make([]byte, 1+r.IntN(most))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func one(name string, params ...uint64) Event {
	return Event{Steps: []Step{{Func: name, Params: params}}}
}

func (e Event) ends(end End) Event {
	e.End = end
	return e
}

// workloads are the guests that events are known for, by the name of the guest.
var workloads = map[string]func(r rng) Event{
	"cmap": func(r rng) Event {
		return keyed(r, 4000, "put", "del", "get", "size")
	},
	"btree": func(r rng) Event {
		if r.oneIn(500) {
			return one("check")
		}
		return keyed(r, 6000, "insert", "remove", "get", "count")
	},
	"rust_kv": func(r rng) Event {
		return keyed(r, 3000, "put", "del", "get", "len")
	},
	"stores": stores,
	"types":  types,
	"swap":   swap,
	"gomap": func(r rng) Event {
		switch r.IntN(20) {
		case 0:
			return one("bulk", r.upTo(300))
		case 1:
			return one("count", r.upTo(100))
		case 2:
			return one("fail", r.upTo(1000)).ends(Traps)
		}
		if r.oneIn(200) {
			return one("gc")
		}
		return keyed(r, 2000, "put", "del", "get", "length")
	},
	"hostmut": func(r rng) Event {
		n := 1 + r.IntN(30_000)
		if r.oneIn(4) {
			return one("fail", r.address(n), uint64(n)).ends(Traps)
		}
		return one("mutate", r.address(n), uint64(n))
	},
	"exit": func(r rng) Event {
		if r.oneIn(3) {
			return Event{Steps: []Step{{Func: "modify"},
				{Func: "exit", Params: []uint64{r.upTo(3)}}}, End: Traps}
		}
		return one("modify")
	},
	"counter": func(rng) Event { return one("inc") },
}

// keyed is an event of a collection.
func keyed(r rng, keys int, put, del, get, length string) Event {
	var e Event
	steps := 1
	if r.oneIn(5) {
		steps = 1 + r.IntN(8)
	}
	for range steps {
		s := Step{Func: put, Params: []uint64{r.upTo(keys), r.Uint64() >> 1}}
		switch r.IntN(10) {
		case 0, 1, 2:
			s = Step{Func: del, Params: []uint64{r.upTo(keys)}}
		case 3:
			s = Step{Func: get, Params: []uint64{r.upTo(keys)}}
		case 4:
			s = Step{Func: length}
		}
		e.Steps = append(e.Steps, s)
	}
	return dressed(r, e)
}

// dressed gives an event metadata now and then, and another end than a commit.
func dressed(r rng, e Event) Event {
	if r.oneIn(20) {
		most := 100
		if r.oneIn(40) {
			most = 20_000
		}
		e.Meta = r.data(most)
	}
	switch r.IntN(50) {
	case 0:
		e.End = Refused
	case 1:
		e.End = Panics
	}
	return e
}

// storesBytes is how large the memory of the guest stores grows.
const storesBytes = 3 << 20

func stores(r rng) Event {
	length := func(most int) int { return 1 + r.IntN(min(most, int(r.bytes))) }
	if r.bytes < storesBytes && r.oneIn(30) {
		return dressed(r, one("grow", 1+r.upTo(8)))
	}
	switch r.IntN(12) {
	case 0:
		n := length(200_000)
		return dressed(r, one("fill", r.address(n), uint64(n), r.upTo(256)))
	case 1:
		n := length(200_000)
		return dressed(r, one("copy", r.address(n), r.address(n), uint64(n)))
	case 2, 3:
		return dressed(r, one("random", r.Uint64(), r.upTo(100)))
	case 4:
		first, stride := r.page(), 1+r.upTo(4)
		n := r.Uint64N((r.bytes/4096-first-1)/stride+1) + 1
		return dressed(r, one("touch", first, stride, n, r.Uint64()))
	case 5:
		return dressed(r, Event{Steps: []Step{
			{Offset: uint32(r.address(300)), Data: r.data(300)},
			{Func: "one", Params: []uint64{r.address(8), r.Uint64()}},
		}})
	case 6: // past the end, with something done before
		return Event{End: Traps, Steps: []Step{
			{Func: "random", Params: []uint64{r.Uint64(), 20}},
			{Func: "grow", Params: []uint64{r.upTo(3)}},
			{Func: "one", Params: []uint64{0xffff_fff0, 1}},
		}}
	}
	return dressed(r, one("one", r.address(8), r.Uint64()))
}

func types(r rng) Event {
	switch r.IntN(12) {
	case 0:
		return one("grow", r.upTo(2)).ends(Commits)
	case 1:
		return one("trap_after_grow", r.upTo(3)).ends(Traps)
	case 2, 3, 4:
		return one("trap_after", r.upTo(40)).ends(Traps)
	case 5:
		return one("oob").ends(Traps)
	case 6:
		return Event{End: Traps, Steps: []Step{
			{Func: "set_globals", Params: []uint64{1, 2, 3, 4}},
			{Func: "div", Params: []uint64{1, 0}},
		}}
	case 7, 8:
		return dressed(r, one("set_globals", uint64(r.Uint32()), r.Uint64(), uint64(r.Uint32()),
			r.Uint64()))
	case 9:
		return dressed(r, one("modify", r.upTo(40)))
	}
	return dressed(r, one("store", r.address(8), r.Uint64()))
}

func swap(r rng) Event {
	if r.onlyCommits {
		steps := []Step{
			{Func: "swap"},
			{Func: "table_size"},
			{Func: "table_grow", Params: []uint64{r.upTo(2)}},
			{Func: "table_fill", Params: []uint64{r.upTo(3), r.upTo(2)}},
			{Func: "table_copy", Params: []uint64{r.upTo(4), r.upTo(2), r.upTo(2)}},
			{Func: "set_null", Params: []uint64{r.upTo(4)}},
			{Func: "keep", Params: []uint64{r.upTo(4)}},
			{Func: "kept_is_null"},
			{Func: "set_lanes", Params: []uint64{r.Uint64(), r.Uint64()}},
			{Func: "get_lanes"},
			{Func: "elem_drop"},
			{Func: "data_drop"},
		}
		return Event{Steps: []Step{steps[r.IntN(len(steps))], steps[r.IntN(len(steps))]}}
	}
	steps := []Step{
		{Func: "swap"},
		{Func: "call", Params: []uint64{r.upTo(100)}},
		{Func: "call_at", Params: []uint64{r.upTo(6), r.upTo(100)}},
		{Func: "call_spare", Params: []uint64{r.upTo(2), r.upTo(100)}},
		{Func: "table_size"},
		{Func: "table_grow", Params: []uint64{r.upTo(3)}},
		{Func: "table_fill", Params: []uint64{r.upTo(5), r.upTo(3)}},
		{Func: "table_copy", Params: []uint64{r.upTo(4), r.upTo(2), r.upTo(2)}},
		{Func: "set_null", Params: []uint64{r.upTo(4)}},
		{Func: "elem_init", Params: []uint64{r.upTo(4), r.upTo(2), r.upTo(2)}},
		{Func: "data_init", Params: []uint64{r.upTo(60_000), r.upTo(8), r.upTo(8)}},
		{Func: "keep", Params: []uint64{r.upTo(5)}},
		{Func: "kept_is_null"},
		{Func: "call_kept", Params: []uint64{r.upTo(100)}},
		{Func: "set_lanes", Params: []uint64{r.Uint64(), r.Uint64()}},
		{Func: "get_lanes"},
		{Func: "get_v128"},
	}
	if r.oneIn(30) {
		steps = append(steps, Step{Func: "elem_drop"}, Step{Func: "data_drop"})
	}
	e := Event{End: MayTrap}
	for range 1 + r.IntN(2) {
		e.Steps = append(e.Steps, steps[r.IntN(len(steps))])
	}
	if r.oneIn(10) {
		e.End = Panics
	}
	return e
}

// Workload is a guest and a stream of events for it.
type Workload struct {
	Guest string
	Wasm  []byte
	Seed  uint64
	// OnlyCommits turns events that would fail into events that do nothing.
	OnlyCommits bool
}

// Event is event number n on a memory of so many bytes.
func (w *Workload) Event(n, memoryBytes uint64) Event {
	e := workloads[w.Guest](rng{mathrand.New(mathrand.NewPCG(w.Seed, n)), memoryBytes,
		w.OnlyCommits})
	switch {
	case !w.OnlyCommits || e.End == Commits:
		return e
	case e.End == Refused || e.End == Panics:
		return e.ends(Commits)
	}
	return Event{}
}

var errHost = errors.New("the host refuses")

// NewRuntime is a runtime with WASI and the functions that the guests import.
func NewRuntime(ctx context.Context, cache wazero.CompilationCache) (wazero.Runtime, error) {
	config := wazero.NewRuntimeConfig()
	if cache != nil {
		config = config.WithCompilationCache(cache)
	}
	rt := wazero.NewRuntimeWithConfig(ctx, config)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, rt); err != nil {
		return nil, err
	}
	env := rt.NewHostModuleBuilder("env")
	env.NewFunctionBuilder().WithFunc(func(_ context.Context, m api.Module, ptr, n uint32) {
		bytes, ok := m.Memory().Read(ptr, n)
		if !ok {
			panic(errHost)
		}
		for i := range bytes {
			bytes[i]++
		}
	}).Export("mutate")
	env.NewFunctionBuilder().WithFunc(func() { panic(errHost) }).Export("fail")
	if _, err := env.Instantiate(ctx); err != nil {
		return nil, fmt.Errorf("host module: %w", err)
	}
	return rt, nil
}

// ModuleConfig is an outside that is the same whenever it is asked: clocks stand still, because
// how often they were read is not a part of the state.
func ModuleConfig() wazero.ModuleConfig {
	return wazero.NewModuleConfig().WithName("").
		WithWalltime(func() (int64, int32) { return 1_700_000_000, 0 }, sys.ClockResolution(1)).
		WithNanotime(func() int64 { return 1 << 40 }, sys.ClockResolution(1)).
		WithRandSource(zeros{})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// RandomSeed is a seed for a run that is not repeated.
func RandomSeed() uint64 {
	var b [8]byte
	rand.Read(b[:])
	seed := uint64(0)
	for _, x := range b {
		seed = seed<<8 | uint64(x)
	}
	return seed
}
