package faultfs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// Image is a directory tree as a power cut could have left it. Paths are relative to its root;
// contents are shared between images and must not be changed.
type Image struct {
	// Plan says what was kept.
	Plan  string
	Dirs  []string // each after its parent
	Files map[string][]byte
}

// Write makes the tree in a directory that exists and is empty.
func (im *Image) Write(root string) error {
	for _, d := range im.Dirs {
		if err := os.Mkdir(filepath.Join(root, d), 0o777); err != nil {
			return err
		}
	}
	for path, data := range im.Files {
		if err := writeSparse(filepath.Join(root, path), data); err != nil {
			return err
		}
	}
	return nil
}

// writeSparse leaves holes where there are pages of zeros.
func writeSparse(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	var zeros [pageSize]byte
	isZero := func(at int) bool {
		page := data[at:min(at+pageSize, len(data))]
		return bytes.Equal(page, zeros[:len(page)])
	}
	for at := 0; at < len(data) && err == nil; {
		if isZero(at) {
			at += pageSize
			continue
		}
		end := at
		for end < len(data) && !isZero(end) {
			end = min(end+pageSize, len(data))
		}
		_, err = f.WriteAt(data[at:end], int64(at))
		at = end
	}
	return errors.Join(err, f.Truncate(int64(len(data))), f.Close())
}

var hashSeed = maphash.MakeSeed()

// Hash is the same for images with the same content, in one process.
func (im *Image) Hash() uint64 {
	var h maphash.Hash
	h.SetSeed(hashSeed)
	for _, d := range im.Dirs {
		fmt.Fprintf(&h, "%s/", d)
	}
	for _, path := range slices.Sorted(maps.Keys(im.Files)) {
		fmt.Fprintf(&h, "%s:%d:", path, len(im.Files[path]))
		h.Write(im.Files[path])
	}
	return h.Sum64()
}

// Cuts builds images that a power cut could leave now: with nothing kept of what is not durable and
// with all of it; with the new lengths of files and not their new content, and the other way round;
// for each file, and for each page of a file with few that are not durable, that one alone kept and
// all but that one; and with as many random choices as asked for. It is for Before.
func (r *Recorder) Cuts(rnd *rand.Rand, random int) []*Image {
	var files []*node
	dirs, lengths := false, false
	r.walk(r.top, func(n *node) {
		if len(n.pending) > 0 || len(n.lengths) > 0 {
			files = append(files, n)
		}
		dirs = dirs || len(n.changes) > 0
		lengths = lengths || n.entries == nil && len(n.now) != len(n.durable)
	})
	slices.SortFunc(files, func(a, b *node) int { // the walk has no order
		if a.path < b.path {
			return -1
		}
		return 1
	})
	var images []*Image
	add := func(plan string, file func(n *node) []byte, dir func(n *node) map[string]*node) {
		im := &Image{Plan: plan, Files: make(map[string][]byte)}
		im.fill("", r.top, file, dir)
		images = append(images, im)
	}
	someDirs := func(n *node) map[string]*node { return n.someEntries(rnd) }
	images = append(images, r.CutNothing())
	if dirs {
		add("names kept, no content", (*node).noneOf, (*node).allEntries)
		add("content kept, no names", (*node).allOf, (*node).stableEntries)
	}
	add("all kept", (*node).allOf, (*node).allEntries)
	if lengths {
		add("lengths kept, no content", (*node).newLength, (*node).allEntries)
		add("content kept, no lengths", (*node).oldLength, (*node).allEntries)
	}
	for _, one := range files {
		if len(files) == 1 {
			break // that is nothing and all
		}
		name := filepath.Base(one.path)
		only := func(n *node) []byte {
			if n == one {
				return n.allOf()
			}
			return n.noneOf()
		}
		others := func(n *node) []byte {
			if n == one {
				return n.noneOf()
			}
			return n.allOf()
		}
		entries := (*node).allEntries
		if dirs {
			entries = someDirs
		}
		add("only "+name+" kept", only, entries)
		add("all but "+name+" kept", others, entries)
	}
	for _, one := range files {
		pages := one.dirtyPages()
		if len(pages) < 2 || len(pages) > fewPages {
			continue
		}
		name := filepath.Base(one.path)
		for _, page := range pages {
			add(fmt.Sprintf("only page %d of %s kept", page, name), func(n *node) []byte {
				if n == one {
					return n.withPage(n.durable, page, n.now)
				}
				return n.noneOf()
			}, (*node).allEntries)
			add(fmt.Sprintf("all but page %d of %s kept", page, name), func(n *node) []byte {
				if n == one {
					return n.withPage(n.now, page, n.durable)
				}
				return n.allOf()
			}, (*node).allEntries)
		}
	}
	for range random {
		images = append(images, r.CutRandom(rnd))
	}
	return images
}

// CutNothing is the image with nothing kept, CutRandom one with random choices. They are for
// Before.
func (r *Recorder) CutNothing() *Image {
	im := &Image{Plan: "nothing kept", Files: make(map[string][]byte)}
	im.fill("", r.top, (*node).noneOf, (*node).stableEntries)
	return im
}

func (r *Recorder) CutRandom(rnd *rand.Rand) *Image {
	im := &Image{Plan: "random", Files: make(map[string][]byte)}
	im.fill("", r.top, func(n *node) []byte {
		switch rnd.IntN(6) {
		case 0:
			return n.noneOf()
		case 1:
			return n.allOf()
		}
		return n.someOf(rnd)
	}, func(n *node) map[string]*node { return n.someEntries(rnd) })
	return im
}

func (im *Image) fill(path string, dir *node, file func(*node) []byte,
	entries func(*node) map[string]*node) {
	list := entries(dir)
	for _, name := range slices.Sorted(maps.Keys(list)) {
		child, at := list[name], filepath.Join(path, name)
		if child.entries != nil {
			im.Dirs = append(im.Dirs, at)
			im.fill(at, child, file, entries)
		} else {
			im.Files[at] = file(child)
		}
	}
}

func (n *node) stableEntries() map[string]*node { return n.stable }
func (n *node) allEntries() map[string]*node    { return n.entries }

// someEntries takes some of the changes: the first few, as a journaling file system does, or any.
func (n *node) someEntries(rnd *rand.Rand) map[string]*node {
	list := maps.Clone(n.stable)
	first := rnd.IntN(len(n.changes) + 1)
	ordered := rnd.IntN(2) == 0
	for i, c := range n.changes {
		if ordered && i >= first || !ordered && rnd.IntN(2) == 0 {
			continue
		}
		for name, child := range c {
			if child == nil {
				delete(list, name)
			} else {
				list[name] = child
			}
		}
	}
	return list
}

// fewPages is up to how many pages of a file are kept or lost one by one.
const fewPages = 6

// dirtyPages are those with anything before the end that the file has now.
func (n *node) dirtyPages() (pages []int) {
	for _, sector := range slices.Sorted(maps.Keys(n.pending)) {
		page := sector * SectorSize / pageSize
		if sector*SectorSize < len(n.now) && (len(pages) == 0 || pages[len(pages)-1] != page) {
			pages = append(pages, page)
		}
	}
	return pages
}

// withPage is b, with the length of the file now, but for one page.
func (n *node) withPage(b []byte, page int, from []byte) []byte {
	c := make([]byte, len(n.now))
	copy(c, b)
	for at := page * pageSize; at < min((page+1)*pageSize, len(c)); at += SectorSize {
		sector := sectorAt(from, at)
		copy(c[at:], sector[:])
	}
	return c
}

func (n *node) noneOf() []byte    { return n.durable }
func (n *node) allOf() []byte     { return n.now }
func (n *node) newLength() []byte { return withLength(n.durable, len(n.now)) }
func (n *node) oldLength() []byte { return withLength(n.now, len(n.durable)) }

// withLength is b, cut off or with zeros behind it.
func withLength(b []byte, length int) []byte {
	if len(b) == length {
		return b
	}
	c := make([]byte, length)
	copy(c, b)
	return c
}

// someOf takes a random length and of each sector a random version: sector by sector, page by
// page, or up to or from a random place, as when a long write is cut off.
func (n *node) someOf(rnd *rand.Rand) []byte {
	if len(n.pending) == 0 && len(n.lengths) == 0 {
		return n.durable // shared, not copied: images may be held by the thousand
	}
	length := int64(len(n.durable))
	if i := rnd.IntN(len(n.lengths) + 1); i > 0 {
		length = n.lengths[i-1]
	}
	b := make([]byte, length)
	copy(b, n.durable)
	const perPage = pageSize / SectorSize
	how, odds, border := rnd.IntN(4), rnd.Float64(), rnd.IntN(int(length)/SectorSize+1)
	page, keepPage := -1, false
	for _, i := range slices.Sorted(maps.Keys(n.pending)) {
		var keep bool
		switch how {
		case 0:
			keep = rnd.Float64() < odds
		case 1:
			if i/perPage != page {
				page, keepPage = i/perPage, rnd.Float64() < odds
			}
			keep = keepPage
		case 2:
			keep = i < border
		case 3:
			keep = i >= border
		}
		if !keep || i*SectorSize >= len(b) {
			continue
		}
		versions := n.pending[i]
		v := versions[len(versions)-1]
		if rnd.IntN(4) == 0 {
			v = versions[rnd.IntN(len(versions))]
		}
		copy(b[i*SectorSize:], v)
	}
	return b
}
