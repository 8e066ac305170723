package pagefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/vfs"
)

// Checksums is the file of page checksums that lies beside a memory file; header.go has the format.
//
// The file is open only while it is needed: from the first use until Release. What was read of it
// is kept in memory until then, at most 4 MiB.
//
// Checksums are as of the last checkpoint. A crash in the middle of one leaves new ones over
// pages of both ages; see [Patcher].
//
// A Checksums is not safe for concurrent use.
type Checksums struct {
	open     func() (vfs.File, error)
	file     vfs.File        // nil while it is not open
	header   *binding.Header // nil until it has been read
	blocks   []*block        // by number; nil where nothing was read
	unsynced bool
}

type block struct {
	data  []byte // blockSize of them
	dirty bool
}

// readBlocks is how many blocks are read at once: the checksums of 64 MiB of memory, for the price
// of three single reads (BenchmarkCheckpointSums in mmrun). They are written one by one: a large
// write makes large folios, and each later sync of one of their pages writes all of it.
const readBlocks = 16

// NewChecksums uses the file that open opens, for reading and writing. Nothing is opened yet.
func NewChecksums(open func() (vfs.File, error)) *Checksums { return &Checksums{open: open} }

// Create makes the file, which is empty, one of a memory of zeros.
func (c *Checksums) Create(stamp binding.Stamp) error { return c.Build(nil, 0, stamp) }

// Release closes the file; the next use opens it again. An error of that means nothing: what is to
// last was synced.
func (c *Checksums) Release() {
	if c.file != nil {
		_ = c.file.Close()
	}
	c.file, c.blocks, c.header = nil, nil, nil
}

// Sync makes the checksums durable. The error wraps ErrSync if it is not known what is on the disk.
func (c *Checksums) Sync() error {
	if err := c.write(); err != nil || !c.unsynced {
		return err
	}
	if err := c.use(); err != nil {
		return err
	}
	if err := c.file.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	c.unsynced = false
	return nil
}

// write writes the blocks that have changed. After an error the file holds some of the changes, as
// after an interrupted checkpoint; the rest is written the next time.
func (c *Checksums) write() (err error) {
	for n, b := range c.blocks {
		if b == nil || !b.dirty {
			continue
		}
		c.unsynced = true
		if _, err = c.file.WriteAt(b.data, int64(n)*blockSize); err != nil {
			return err
		}
		b.dirty = false
	}
	return nil
}

func (c *Checksums) use() (err error) {
	if c.file == nil {
		c.file, err = c.open()
	}
	return err
}

// block returns the block of the file that holds an offset.
func (c *Checksums) block(offset int64) (*block, error) {
	n := int(offset / blockSize)
	if n < len(c.blocks) && c.blocks[n] != nil {
		return c.blocks[n], nil
	}
	if err := c.use(); err != nil {
		return nil, err
	}
	first := n / readBlocks * readBlocks
	data := make([]byte, readBlocks*blockSize)
	if err := readZeroPadded(c.file, data, int64(first)*blockSize); err != nil {
		return nil, err
	}
	if first == 0 {
		header, _, err := decodeHeader(data[:headerSize])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.file.Name(), err)
		}
		c.header = header
	}
	if more := first + readBlocks - len(c.blocks); more > 0 {
		c.blocks = append(c.blocks, make([]*block, more)...)
	}
	for i := range readBlocks {
		if c.blocks[first+i] == nil {
			c.blocks[first+i] = &block{data: data[i*blockSize:][:blockSize]}
		}
	}
	return c.blocks[n], nil
}

// at is the checksum noted for a page.
func (c *Checksums) at(page uint32) (uint32, error) {
	b, err := c.block(place(page))
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint32(b.data[place(page)%blockSize:]), nil
}

// set notes the checksum of a page. Also one that is there already is written and synced: after a
// kill it may be in the page cache only.
func (c *Checksums) set(page, now uint32) error {
	b, err := c.block(place(page))
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b.data[place(page)%blockSize:], now)
	b.dirty = true
	return nil
}

// Stamp opens the file and reads which checkpoint it is of.
func (c *Checksums) Stamp() (binding.Stamp, error) {
	if _, err := c.block(0); err != nil {
		return binding.Stamp{}, err
	}
	return c.header.Stamp()
}

// setStamp notes which checkpoint the checksums are of. All of them are durable before, so that the
// stamp never vouches for older ones.
func (c *Checksums) setStamp(s binding.Stamp) error {
	b, err := c.block(0)
	if err != nil {
		return err
	}
	c.header.Set(b.data, s)
	b.dirty = true
	return nil
}

// Clip cuts off the checksums past a memory of size bytes. A checkpoint that was lost may have left
// some, and the next growth would be checked against them.
func (c *Checksums) Clip(size uint64) error {
	if _, err := c.Stamp(); err != nil {
		return err
	}
	end, err := c.file.Size()
	if err != nil {
		return err
	}
	pages := uint32(size / PageSize)
	if end <= place(pages) {
		return nil
	}
	c.blocks, c.header = nil, nil
	return c.file.Truncate(place(pages))
}

// Build makes the file anew, with the checksums of all pages of a memory of size bytes.
func (c *Checksums) Build(memory io.ReaderAt, size uint64, stamp binding.Stamp) error {
	if err := c.use(); err != nil {
		return err
	}
	pages := uint32(size / PageSize)
	// All blocks are written, and what is behind them is cut off last: at any time a page that was
	// not damaged has its old checksum, its new one, which is the same, or no file to look at.
	c.blocks = make([]*block, (place(pages)+blockSize-1)/blockSize)
	for n := range c.blocks {
		c.blocks[n] = &block{data: make([]byte, blockSize), dirty: true}
	}
	c.header = binding.NewHeader(stamp)
	c.header.Encode(c.blocks[0].data)
	const batch = 256 * PageSize
	run := make([]byte, min(batch, size))
	for at := uint64(0); at < size; at += batch {
		n := min(batch, size-at)
		if err := readZeroPadded(memory, run[:n], int64(at)); err != nil {
			return err
		}
		for i := uint64(0); i < n; i += PageSize {
			at := place(uint32((at + i) / PageSize))
			checksum := pageChecksum(run[i : i+PageSize])
			binary.LittleEndian.PutUint32(c.blocks[at/blockSize].data[at%blockSize:], checksum)
		}
	}
	if err := c.write(); err != nil {
		return err
	}
	return c.file.Truncate(int64(len(c.blocks)) * blockSize)
}

// ErrChecksum is wrapped by errors about what does not have its checksum: damage.
var ErrChecksum = errors.New("checksum mismatch")

// ErrSync is what the error of a failed sync wraps: it is unknown what is on the disk.
var ErrSync = errors.New("a sync failed, what is on the disk is unknown")
