package guests_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/sys"

	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// The collections are oracles in other tests, so they are held against Go's map here.

// names of a collection's exports.
type collection struct {
	put, get, del, length string
}

// exercise does random operations on the guest and on a map, and returns the map and how often each
// key that is still there has been put. check is called now and then.
func (c collection) exercise(t *testing.T, g *guest, ops int,
	check func(entries map[uint64]uint64)) (map[uint64]uint64, map[uint64]uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	entries, puts := map[uint64]uint64{}, map[uint64]uint64{}
	for i := range ops {
		// The share of removals goes up and down, so that the collection grows and shrinks.
		key := rng.Uint64N(3000)
		if rng.IntN(4) == 0 {
			key = ^key // the other end of the range
		}
		_, present := entries[key]
		isNew, wasThere := uint64(1), uint64(0)
		if present {
			isNew, wasThere = 0, 1
		}
		switch op := rng.IntN(10); {
		case op < 2:
			want := i64(-1)
			if present {
				want = entries[key]
			}
			g.want(want, c.get, key)
		case op < 5 == (i/(ops/4)%2 == 0):
			g.want(wasThere, c.del, key)
			delete(entries, key)
			delete(puts, key)
		default:
			value := rng.Uint64() >> 1
			g.want(isNew, c.put, key, value)
			entries[key] = value
			puts[key]++
		}
		if i%(ops/20) == 0 {
			g.want(uint64(len(entries)), c.length)
			check(entries)
		}
		if t.Failed() {
			t.Fatalf("after %d operations", i+1)
		}
	}
	for key, value := range entries {
		g.want(value, c.get, key)
	}
	check(entries)
	return entries, puts
}

func TestCMapAgainstMap(t *testing.T) {
	g := load(t, "cmap")
	before := g.mod.Memory().Size()
	c := collection{"put", "get", "del", "size"}
	c.exercise(t, g, 40_000, func(entries map[uint64]uint64) {
		sum := uint64(0)
		for key, value := range entries {
			h := fnv.New64a()
			fmt.Fprintf(h, "key-%d", key)
			h.Write(binary.LittleEndian.AppendUint64(nil, value))
			sum += h.Sum64()
		}
		g.want(sum, "checksum")
	})
	if g.mod.Memory().Size() == before {
		t.Error("memory has not grown")
	}
}

func TestBTreeAgainstMap(t *testing.T) {
	g := load(t, "btree")
	c := collection{"insert", "get", "remove", "count"}
	entries, _ := c.exercise(t, g, 40_000, func(map[uint64]uint64) {
		g.want(0, "check")
	})
	for i, key := range slices.Sorted(maps.Keys(entries)) {
		g.want(1, "remove", key)
		if i%100 == 0 {
			g.want(0, "check")
		}
	}
	g.want(0, "count")
	g.want(0, "check")
	g.want(i64(-1), "get", 1)
	g.want(0, "remove", 1)

	for key := range uint64(10_000) {
		g.want(1, "insert", key, key)
	}
	g.want(0, "check")
}

// check is an oracle itself: it must see damage. The first keys go to one leaf, whose place in
// memory is found by its content.
func TestBTreeCheckSeesDamage(t *testing.T) {
	g := load(t, "btree")
	const first = 0x1122334455667788
	for i := range uint64(7) {
		g.call("insert", first+i, 0)
	}
	memory, _ := g.mod.Memory().Read(0, g.mod.Memory().Size())
	at := strings.Index(string(memory), string(binary.LittleEndian.AppendUint64(nil, first)))
	if at < 0 {
		t.Fatal("the key is not in memory")
	}
	g.want(0, "check")
	g.mod.Memory().WriteUint64Le(uint32(at), first+9)
	g.want(1, "check")
	g.mod.Memory().WriteUint64Le(uint32(at), first)
	const keysOffset = 8 // of node: n and leaf come first
	g.mod.Memory().WriteUint32Le(uint32(at)-keysOffset, 6)
	g.want(4, "check")
	g.mod.Memory().WriteUint32Le(uint32(at)-keysOffset, 8)
	g.want(2, "check")
}

func TestRustKVAgainstMap(t *testing.T) {
	g := load(t, "rust_kv")
	c := collection{"put", "get", "del", "len"}
	entries, puts := c.exercise(t, g, 40_000, func(map[uint64]uint64) {})
	h := fnv.New64a()
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		for _, n := range []uint64{key, entries[key], puts[key]} {
			h.Write(binary.LittleEndian.AppendUint64(nil, n))
		}
	}
	g.want(h.Sum64(), "checksum")
}

func TestRustWASI(t *testing.T) {
	var stdout, stderr strings.Builder
	g := instantiate(t, guests.Load(t, "rust_wasi"), stdio{stdout: &stdout, stderr: &stderr})
	for i := range uint64(1000) {
		g.want(i+1, "push", i)
	}
	g.want(1000, "len")
	g.want(999*1000/2, "sum")
	g.want(7, "at", 7)
	g.call("print_part", 5)
	printed := stdout.String()
	if !strings.HasPrefix(printed, "pushed 0, 1 items\npushed 1, 2 items\n") ||
		strings.HasSuffix(printed, "5 ") {
		t.Errorf("printed %.60q", printed)
	}
	g.call("flush")
	if !strings.HasSuffix(stdout.String(), "pushed 999, 1000 items\n5 ") {
		t.Error("the part of a line is lost")
	}
	g.wantError("at", 1000)
	if !strings.Contains(stderr.String(), "index out of bounds") {
		t.Errorf("the panic printed %q", stderr.String())
	}
}

func TestGoMap(t *testing.T) {
	var stderr strings.Builder
	g := instantiate(t, guests.Go(t, "gomap"), stdio{stderr: &stderr})
	g.want(i64(-1), "get", 1)
	g.call("put", 1, 11)
	g.call("put", 2, 22)
	g.want(22, "get", 2)
	g.want(1, "del", 2)
	g.want(0, "del", 2)
	h := fnv.New64a()
	h.Write([]byte("key-1=11\n"))
	g.want(h.Sum64(), "checksum")
	g.call("bulk", 20_000)
	g.want(20_000, "length")
	g.want(1, "get", 1)
	g.call("gc")
	for i := range uint64(10) {
		g.want((i+1)*3, "count", 3)
	}
	g.call("gc")
	g.want(29, "count", i64(-1))

	// In a c-shared build Go ends a panic with an abort, not with exit status 2.
	var exit *sys.ExitError
	if err := g.wantError("fail", 5); errors.As(err, &exit) ||
		!strings.Contains(err.Error(), "unreachable") {
		t.Errorf("a Go panic ended as %v", err)
	}
	if !strings.Contains(stderr.String(), "panic: fail was called") {
		t.Errorf("the panic printed %q", stderr.String())
	}
}

func TestGobig(t *testing.T) {
	wasm := guests.Go(t, "gobig")
	if len(wasm) < 5<<20 {
		t.Errorf("%d bytes: it is there for its size", len(wasm))
	}
	g := instantiate(t, wasm, stdio{})
	g.want(1, "put", 7)
	g.want(2, "put", 8)
	g.want(40, "render", 8)
	g.want(uint64(^uint32(0)), "render", 9)
}
