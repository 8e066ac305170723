package engine

import (
	"fmt"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/guest"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/wal"
)

// checkRecord refuses a record that does not follow the state s of a module whose memory can have
// up to maxPages. Whoever reads a log that it has not written itself asks this first, so that
// verify and recovery never differ in what they refuse.
func checkRecord(r wal.Record, s *globalsfile.State, maxPages uint32) error {
	if r.WasmPages < s.MemoryPages || r.WasmPages > maxPages {
		return fmt.Errorf("%w: commit %d has a memory of %d wasm pages",
			wal.ErrCorrupt, r.Seq, r.WasmPages)
	}
	end := uint64(r.WasmPages) * mmapmem.WasmPageSize
	for offset, data := range r.Ranges() {
		if uint64(offset)+uint64(len(data)) > end {
			return fmt.Errorf("%w: commit %d writes behind its memory", wal.ErrCorrupt, r.Seq)
		}
	}
	return nil
}

// applySmall brings the small state s forward by a record, or leaves it as it is: of a record that
// is damaged, or that a newer program has written, no part may be used.
func applySmall(s *globalsfile.State, r wal.Record) error {
	if err := delta.Apply(s, r.Small); err != nil {
		return fmt.Errorf("commit %d: %w", r.Seq, err)
	}
	s.Seq, s.MemoryPages = r.Seq, r.WasmPages
	return nil
}

// captureSmall notes in e what has become of the small state since s, with what the
// host's side makes of it, and
// refuses what a checkpoint could not keep: what is acknowledged can be opened.
func captureSmall(g *guest.Guest, s *globalsfile.State, x Extras, e *delta.Encoder) error {
	if err := g.Capture(s, e); err != nil {
		return err
	}
	if x.MetaSet {
		e.Meta(s.Meta, x.Meta)
	}
	for _, c := range x.Kept {
		k := delta.Kept{ID: c.ID, Bytes: c.Bytes}
		if c.Append {
			k.Stay = len(s.Kept[c.ID-section.FirstKept])
		}
		e.Keep(k)
	}
	return e.CheckFits(s)
}
