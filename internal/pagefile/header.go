package pagefile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The file memory.sums, format version 2. Numbers are little endian.
//
//	offset  bytes
//	     0      8  magic "mmrunSUM"
//	     8      4  format version: 2
//	    12      4  bytes of a page: 4096
//	    16     44  zeros
//	    60      4  CRC-32C of bytes 0 to 59
//	    64    4*i  checksum of page i of the file memory
//
// The checksum of a page is its CRC-32C, exclusive or that of a page of zeros, 0x98f94189. A page
// of zeros so has the checksum 0: a hole in memory is a hole here, and what lies behind the end of
// this file is 0. Behind the checksums of the memory there may be more, of a checkpoint of a larger
// memory that has come to nothing; they mean nothing and are cut off when the state is opened.
//
// The header is written once and never again. The file is read and written in blocks of 4096
// bytes, of which the first holds the header.

// Version is the format version of memory.sums.
const Version = 2

const (
	headerSize   = 64
	checksumSize = 4
	blockSize    = 4096
	magic        = "mmrunSUM"

	// mostPages is how many pages a memory can have: 4 GiB of them.
	mostPages = 1 << 20
)

// ErrVersion is wrapped by the error about a file of a format version that is not known.
var ErrVersion = errors.New("unknown format version")

func encodeHeader() (h [headerSize]byte) {
	copy(h[:], magic)
	binary.LittleEndian.PutUint32(h[8:], Version)
	binary.LittleEndian.PutUint32(h[12:], PageSize)
	binary.LittleEndian.PutUint32(h[60:], crc32.Checksum(h[:60], castagnoli))
	return h
}

// checkHeader returns an error that wraps ErrChecksum if h, which begins the file, is damaged, or
// one that wraps ErrVersion.
func checkHeader(h []byte) error {
	switch version := binary.LittleEndian.Uint32(h[8:]); {
	case string(h[:8]) != magic:
		return fmt.Errorf("header: no magic at offset 0: %q: %w", h[:8], ErrChecksum)
	case binary.LittleEndian.Uint32(h[60:]) != crc32.Checksum(h[:60], castagnoli):
		return fmt.Errorf("header: %w", ErrChecksum)
	case version != Version:
		return fmt.Errorf("%w %d: this program knows version %d "+
			"(open the state with the mmrun that wrote it)", ErrVersion, version, Version)
	}
	if size := binary.LittleEndian.Uint32(h[12:]); size != PageSize {
		return fmt.Errorf("header: pages of %d bytes, not %d: %w", size, PageSize, ErrChecksum)
	}
	return nil
}

// CheckHeader reads the beginning of a checksum file. The error wraps ErrChecksum if it is
// damaged, and ErrVersion if it is of another format version.
func CheckHeader(checksums io.ReaderAt) error {
	var h [headerSize]byte
	if err := readZeroPadded(checksums, h[:], 0); err != nil {
		return err
	}
	return checkHeader(h[:])
}

// place is where in the file the checksum of a page is.
func place(page uint32) int64 { return headerSize + int64(page)*checksumSize }

// readZeroPadded reads len(p) bytes, with zeros for what lies behind the end.
func readZeroPadded(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if err != nil && err != io.EOF {
		return err
	}
	clear(p[n:])
	return nil
}
