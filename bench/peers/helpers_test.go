package peers_test

import (
	"math/rand/v2"
	"testing"

	"github.com/mmrun/mmrun/bench/peers"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, p peers.Peer, o peers.Options) peers.Store {
	t.Helper()
	s, err := p.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) }
