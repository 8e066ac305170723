package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/rewriter"
)

// Difference is how one state differs from another.
type Difference struct {
	A          Side         `json:"a"`
	B          Side         `json:"b"`
	SameModule bool         `json:"sameModule"`
	Pages      int          `json:"pages"` // of 4 KiB, that differ
	Bytes      uint64       `json:"bytes"` // of the memory, that differ
	Ranges     []RangeDiff  `json:"ranges,omitempty"`
	MoreRanges bool         `json:"moreRanges,omitempty"` // than are listed
	Globals    []GlobalDiff `json:"globals,omitempty"`
	Tables     []TableDiff  `json:"tables,omitempty"`
	// that are dropped in one of them alone, by number
	Segments []uint32 `json:"segments,omitempty"`
	Meta     bool     `json:"meta"` // the user's bytes differ
	// what is kept beside: receipts, stream position
	HostSide bool `json:"hostSide"`
}

// Side is one of the two.
type Side struct {
	Dir         string `json:"state"`
	Seq         uint64 `json:"seq"`
	MemoryBytes uint64 `json:"memoryBytes"`
	Module      string `json:"module"` // SHA-256
}

// RangeDiff is a run of bytes that differ.
type RangeDiff struct {
	Offset uint64 `json:"offset"`
	A      []byte `json:"a"` // what one has there; in JSON as base64
	B      []byte `json:"b"`
}

// GlobalDiff is a global that differs.
type GlobalDiff struct {
	Index uint32           `json:"index"`
	Name  string           `json:"name,omitempty"`
	Type  rewriter.ValType `json:"type"`
	A, B  [2]uint64        // low and high half
}

// TableDiff is a table that differs.
type TableDiff struct {
	Index uint32 `json:"index"`
	// Entries is how many of its entries differ, those that one of them alone has included.
	Entries int `json:"entries"`
}

// Same tells whether there is no difference in what the guest and its user see.
func (d *Difference) Same() bool {
	return d.SameModule && d.Bytes == 0 && d.A.MemoryBytes == d.B.MemoryBytes &&
		len(d.Globals) == 0 &&
		len(d.Tables) == 0 && len(d.Segments) == 0 && !d.Meta
}

// MostRanges is how many ranges a difference lists.
const MostRanges = 10_000

// Diff tells how the state in b differs from the one in a, each as of its last commit. ranges says
// whether the bytes that differ are wanted, too.
func Diff(ctx context.Context, a, b string, ranges bool) (*Difference, error) {
	return Archiver{}.Diff(ctx, a, b, ranges)
}

// Diff is the function of that name.
func (a Archiver) Diff(ctx context.Context, dirA, dirB string, ranges bool) (_ *Difference,
	err error) {
	a = a.orDefault()
	var images [2]*engine.Image
	for i, dir := range []string{filepath.Clean(dirA), filepath.Clean(dirB)} {
		if images[i], err = engine.OpenImage(a.FS, dir, a.Boot); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, images[i].Close()) }()
		images[i].StopWith(ctx)
	}
	d, err := diffImages(images[0], images[1], ranges, a.Progress)
	if err == nil {
		d.A.Dir, d.B.Dir = filepath.Clean(dirA), filepath.Clean(dirB)
	}
	return d, err
}

func sideOf(im *engine.Image) Side {
	return Side{Seq: im.State.Seq, MemoryBytes: im.Size, Module: fmt.Sprintf("%x", im.Hash)}
}

func diffImages(a, b *engine.Image, ranges bool, progress func(done, total uint64)) (*Difference,
	error) {
	d := &Difference{A: sideOf(a), B: sideOf(b), SameModule: a.Hash == b.Hash,
		Meta: !bytes.Equal(a.State.Meta, b.State.Meta)}
	for i := range a.State.Kept {
		d.HostSide = d.HostSide || !bytes.Equal(a.State.Kept[i], b.State.Kept[i])
	}
	if d.SameModule {
		_, info, err := rewriter.Rewrite(a.Module, rewriter.Options{})
		if err != nil {
			return nil, err
		}
		d.small(a, b, &info)
	}
	return d, d.memory(a, b, ranges, progress)
}

// small compares what has the same shape in both, since they have the same module.
func (d *Difference) small(a, b *engine.Image, info *rewriter.Info) {
	for i, v := range a.State.Globals {
		if w := b.State.Globals[i]; v != w {
			g := info.Globals[i]
			d.Globals = append(d.Globals, GlobalDiff{g.Index, g.Name, g.Type, [2]uint64{v.Lo, v.Hi},
				[2]uint64{w.Lo, w.Hi}})
		}
	}
	for i, t := range a.State.Tables {
		u := b.State.Tables[i]
		if slices.Equal(t, u) {
			continue
		}
		n := max(len(t), len(u)) - min(len(t), len(u))
		for j := range min(len(t), len(u)) {
			if t[j] != u[j] {
				n++
			}
		}
		d.Tables = append(d.Tables, TableDiff{info.Tables[i].Index, n})
	}
	for i, dropped := range a.State.Dropped {
		if dropped != b.State.Dropped[i] {
			d.Segments = append(d.Segments, info.Segments[i].Index)
		}
	}
}

const pageSize = 4096

// cursor goes through the pages of an image that may not be zeros.
type cursor struct {
	next   func() (offset uint64, page []byte, ok bool)
	stop   func()
	err    error
	offset uint64
	page   []byte // nil at the end
}

// pagesOf pulls the pages out of an image.
func pagesOf(im *engine.Image) *cursor {
	c := &cursor{}
	c.next, c.stop = iter.Pull2(func(yield func(uint64, []byte) bool) {
		c.err = im.Pages(func(offset uint64, data []byte) error {
			for i := 0; i < len(data); i += pageSize {
				if !yield(offset+uint64(i), data[i:][:pageSize]) {
					return errStopped
				}
			}
			return nil
		})
	})
	return c
}

var errStopped = errors.New("stopped")

func (c *cursor) advance() error {
	var ok bool
	if c.offset, c.page, ok = c.next(); !ok {
		c.page = nil
		return c.err
	}
	return nil
}

var zeroPage = make([]byte, pageSize)

func (d *Difference) memory(a, b *engine.Image, ranges bool,
	progress func(done, total uint64)) error {
	x, y := pagesOf(a), pagesOf(b)
	defer x.stop()
	defer y.stop()
	if err := errors.Join(x.advance(), y.advance()); err != nil {
		return err
	}
	total := max(a.Size, b.Size)
	for n := 0; x.page != nil || y.page != nil; n++ {
		offset := y.offset
		if y.page == nil || x.page != nil && x.offset < y.offset {
			offset = x.offset
		}
		p, q := zeroPage, zeroPage
		inX, inY := x.page != nil && x.offset == offset, y.page != nil && y.offset == offset
		if inX {
			p = x.page
		}
		if inY {
			q = y.page
		}
		d.page(offset, p, q, ranges)
		if n%1024 == 0 && progress != nil {
			progress(offset, total)
		}
		if inX {
			if err := x.advance(); err != nil {
				return err
			}
		}
		if inY {
			if err := y.advance(); err != nil {
				return err
			}
		}
	}
	return nil
}

// page compares one page. Runs with few equal bytes between them are one range.
func (d *Difference) page(offset uint64, p, q []byte, ranges bool) {
	if bytes.Equal(p, q) {
		return
	}
	d.Pages++
	const join = 8
	start, last := -1, 0
	flush := func() {
		if start < 0 || !ranges {
			return
		}
		if len(d.Ranges) == MostRanges {
			d.MoreRanges = true
			return
		}
		d.Ranges = append(d.Ranges, RangeDiff{offset + uint64(start),
			bytes.Clone(p[start : last+1]),
			bytes.Clone(q[start : last+1])})
	}
	for i := range p {
		if p[i] == q[i] {
			continue
		}
		d.Bytes++
		if start >= 0 && i-last > join {
			flush()
			start = -1
		}
		if start < 0 {
			start = i
		}
		last = i
	}
	flush()
}
