package mmapmem

// shadows gives out pages for shadows.
//
// They come from slabs, which costs a quarter less than one allocation each (BenchmarkShadows). The
// first slab is small, since most instances of a crowd change a few pages.
type shadows struct {
	free []*[PageSize]byte
	slab [][PageSize]byte // not given out yet
	next int              // pages of the next slab
}

const (
	firstSlab = 4  // 16 KiB
	mostSlab  = 64 // 256 KiB
	// mostFree is how many shadows are kept for the next pages: 16 MiB. What is beyond goes back to
	// Go's heap, when all of its slab has.
	mostFree = 4096
)

// get returns a page with any content.
func (s *shadows) get() *[PageSize]byte {
	if n := len(s.free); n > 0 {
		p := s.free[n-1]
		s.free[n-1] = nil
		s.free = s.free[:n-1]
		return p
	}
	if len(s.slab) == 0 {
		s.next = min(max(2*s.next, firstSlab), mostSlab)
		s.slab = make([][PageSize]byte, s.next)
	}
	p := &s.slab[0]
	s.slab = s.slab[1:]
	return p
}

func (s *shadows) put(p *[PageSize]byte) {
	if len(s.free) < mostFree {
		s.free = append(s.free, p)
	}
}
