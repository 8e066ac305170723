package engine

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
)

// Reason is why a state goes on elsewhere than it began.
type Reason byte

// The reasons. They are told to guests, and do not change.
const (
	NotDerived Reason = iota
	Forked
	Restored
	Upgraded
)

/*
The section of the fork generation:

	bytes
	    1  version of this layout, 1
	    8  generation: grows with each fork and restore, and is another one in each
	    1  reason of the last one: 1 fork, 2 restore, 3 upgrade
	    1  1 as long as the guest has not been told
*/
const (
	generationVersion = 1
	generationLength  = 11
)

// Generation is what a state says of its origin.
type Generation struct {
	Number int64
	Reason Reason
	Untold bool
}

// GenerationOf reads it; a state that was never forked has the number 0.
func GenerationOf(s *globalsfile.State) (g Generation) {
	b := s.Kept[section.Fork-section.FirstKept]
	if len(b) != generationLength || b[0] != generationVersion {
		return g
	}
	return Generation{int64(binary.LittleEndian.Uint64(b[1:])), Reason(b[9]), b[10] == 1}
}

// Encode is the section.
func (g Generation) Encode() []byte {
	b := binary.LittleEndian.AppendUint64([]byte{generationVersion}, uint64(g.Number))
	untold := byte(0)
	if g.Untold {
		untold = 1
	}
	return append(b, byte(g.Reason), untold)
}

// next is the generation of a state that is derived from this one. The low bits are random, so that
// two forks of one state differ.
func (g Generation) next(reason Reason) Generation {
	const randomBits = 32
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	random := int64(binary.LittleEndian.Uint64(b[:]) >> (64 - randomBits))
	return Generation{(g.Number>>randomBits+1)<<randomBits | random, reason, true}
}

// Derive makes of an image one that is to go on elsewhere.
func (im *Image) Derive(reason Reason) {
	im.State.Kept[section.Fork-section.FirstKept] = GenerationOf(im.State).next(reason).Encode()
}

// Fork makes a state in to of the last commit of the one in dir, which nobody has open. It shares
// blocks where the file system can, and takes no time that grows with the memory then.
func Fork(ctx context.Context, fsys vfs.FS, dir, to string, boot [16]byte,
	progress func(done, total uint64)) (seq uint64, err error) {
	im, err := OpenImage(fsys, dir, boot)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	im.Derive(Forked)
	im.StopWith(ctx)
	return im.State.Seq, Build(fsys, to, boot, im, progress)
}

// StopWith makes the reading of the memory end with an error when ctx ends.
func (im *Image) StopWith(ctx context.Context) {
	next := im.next
	im.next = func(b []byte) (uint64, int, error) {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		return next(b)
	}
}

// clone gives a new file the blocks of one of a state; false if the file system cannot.
func clone(fsys vfs.FS, to vfs.File, dir, name string, size int64) bool {
	from, err := fsys.OpenFile(filepath.Join(dir, name), os.O_RDONLY, 0)
	if err != nil {
		return false
	}
	defer from.Close()
	if cloneFile(to.OSFile(), from.OSFile()) != nil {
		return false
	}
	if size < 0 {
		return true
	}
	return to.Truncate(size) == nil
}

// cloneMemory shares memory and checksums with those of a directory, whose checkpoint is the image.
func (b *build) cloneMemory(memory, sums vfs.File) bool {
	dir := b.im.cloneOf
	if dir == "" || !clone(b.fsys, memory, dir, statedir.MemoryName, int64(b.im.Size)) {
		return false
	}
	if sums == nil || clone(b.fsys, sums, dir, statedir.ChecksumsName, -1) {
		return true
	}
	_ = memory.Truncate(0) // what stays would be the same bytes
	return false
}
