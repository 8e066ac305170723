package mmapmem

import "testing"

// The first page takes a small slab, many pages take large ones, and what is given back is used
// again, up to a bound.
func TestShadowsComeInGrowingSlabs(t *testing.T) {
	var s shadows
	seen := map[*[PageSize]byte]bool{}
	var slabs []int
	for range 4 * mostSlab {
		if len(s.slab) == 0 {
			slabs = append(slabs, 0)
		}
		slabs[len(slabs)-1]++
		p := s.get()
		if seen[p] {
			t.Fatal("a page was given out twice")
		}
		seen[p] = true
	}
	if slabs[0] != firstSlab || slabs[len(slabs)-1] > mostSlab || len(slabs) > 10 {
		t.Errorf("slabs of %d pages", slabs)
	}
	for p := range seen {
		s.put(p)
	}
	for range len(seen) {
		if !seen[s.get()] {
			t.Fatal("a new page, though some are free")
		}
	}
	for range 2 * mostFree {
		s.put(new([PageSize]byte))
	}
	if len(s.free) != mostFree {
		t.Errorf("%d free pages are kept, %d are the bound", len(s.free), mostFree)
	}
}

// BenchmarkShadows is a shadow and its first filling: from a slab, and allocated alone.
func BenchmarkShadows(b *testing.B) {
	const pages = 8192
	var from [PageSize]byte
	held := make([]*[PageSize]byte, 0, pages)
	run := func(b *testing.B, get func() *[PageSize]byte) {
		for b.Loop() {
			if len(held) == pages {
				clear(held)
				held = held[:0]
			}
			p := get()
			*p = from
			held = append(held, p)
		}
	}
	b.Run("how=slab", func(b *testing.B) {
		var s shadows
		run(b, s.get)
	})
	b.Run("how=alone", func(b *testing.B) {
		run(b, func() *[PageSize]byte { return new([PageSize]byte) })
	})
}
