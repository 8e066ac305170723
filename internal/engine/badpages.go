package engine

import (
	"slices"

	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// PageSet collects the pages that records of the log change. A checkpoint that was cut off may have
// been writing any of them; see pagefile.Patcher.
type PageSet map[uint32]bool

// Add notes the pages of one record.
func (set PageSet) Add(r wal.Record) {
	for offset, data := range r.Ranges() {
		if len(data) == 0 {
			continue
		}
		end := uint64(offset) + uint64(len(data)) - 1
		for page := uint64(offset) / mmapmem.PageSize; page <= end/mmapmem.PageSize; page++ {
			set[uint32(page)] = true
		}
	}
}

// BadPages lists the pages of the first size bytes of an atomic state's memory that do not have
// their checksum, in order. A page that the log brings forward (they are in named) may be between
// its old and its new content: it is bad only if applying the log's records does not lead to its
// checksum.
func BadPages(v *View, memory, sums vfs.File, size uint64, named PageSet) ([]uint32, error) {
	var bad []uint32
	suspects := make(map[uint32]*pagefile.Suspect)
	err := pagefile.Verify(memory, sums, size, func(page uint32) {
		if named[page] {
			suspects[page] = nil
		} else {
			bad = append(bad, page)
		}
	})
	if err != nil {
		return nil, err
	}
	for page := range suspects {
		if suspects[page], err = pagefile.NewSuspect(memory, sums, page); err != nil {
			return nil, err
		}
	}
	if len(suspects) > 0 && v.WAL != nil {
		// The damage of the log, if there is any, has been reported.
		_, _ = v.WAL.Replay(v.Slot.Seq, func(r wal.Record) error {
			patchSuspects(suspects, r)
			return nil
		})
	}
	for page, s := range suspects {
		if !s.Innocent() {
			bad = append(bad, page)
		}
	}
	slices.Sort(bad)
	return bad, nil
}

// patchSuspects applies a record to the pages under suspicion.
func patchSuspects(suspects map[uint32]*pagefile.Suspect, r wal.Record) {
	for offset, data := range r.Ranges() {
		for len(data) > 0 {
			at := int(offset % mmapmem.PageSize)
			n := min(len(data), mmapmem.PageSize-at)
			if s := suspects[offset/mmapmem.PageSize]; s != nil {
				s.Patch(at, data[:n])
			}
			offset += uint32(n)
			data = data[n:]
		}
	}
}
