package engine

import (
	"context"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
)

// Picture is what can be seen of a store between two events.
type Picture struct {
	State     *globalsfile.State // a copy, of the last commit
	Looks     []mmapmem.Look     // a cell for each run of pages
	PagesEach uint32             // pages in a cell
}

// Picture waits for a quiescent point and looks at the memory, in cells at most. Written is what
// was changed behind the commit since.
func (s *Store) Picture(ctx context.Context, cells int, since uint64) (p Picture, err error) {
	if err := s.Enter(ctx); err != nil {
		return p, err
	}
	defer s.Leave()
	if err := s.Usable(); err != nil {
		return p, err
	}
	p.State = delta.Clone(s.state)
	if s.mem == nil || cells <= 0 {
		return p, nil
	}
	pages := uint32(s.mem.Size() / mmapmem.PageSize)
	p.PagesEach = max(1, (pages+uint32(cells)-1)/uint32(cells))
	p.Looks = make([]mmapmem.Look, (pages+p.PagesEach-1)/p.PagesEach)
	return p, s.mem.Looks(p.Looks, p.PagesEach, since)
}
