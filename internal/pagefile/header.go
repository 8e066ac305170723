package pagefile

import (
	"errors"
	"fmt"
	"io"

	"github.com/mmrun/mmrun/internal/binding"
)

// The file memory.sums, format version 2. Numbers are little endian.
//
//	offset  bytes
//	     0   1536  header: which checkpoint the checksums are of (internal/binding)
//	  1536    4*i  checksum of page i of the file memory
//
// The checksum of a page is its CRC-32C, exclusive or that of a page of zeros, 0x98f94189. A page
// of zeros so has the checksum 0: a hole in memory is a hole here, and what lies behind the end of
// this file is 0. Behind the checksums of the memory there may be more, of a checkpoint of a larger
// memory that has come to nothing; they mean nothing and are cut off when the state is opened.
//
// The file is read and written in blocks of 4096 bytes, of which the first holds the header.

const (
	headerSize   = binding.HeaderLength
	checksumSize = 4
	blockSize    = 4096
)

// ErrVersion is wrapped by the error about a file of a format version that is not known.
var ErrVersion = binding.ErrVersion

// decodeHeader returns an error that wraps ErrChecksum if h, which begins the file, is damaged, or
// one that wraps ErrVersion.
func decodeHeader(h []byte) (*binding.Header, binding.Stamp, error) {
	header, err := binding.Decode(h)
	if err != nil {
		return nil, binding.Stamp{}, fmt.Errorf("%w (open the state with the mmrun that wrote it)",
			err)
	}
	stamp, err := header.Stamp()
	if err != nil {
		return nil, stamp, fmt.Errorf("header: %w: %w", ErrChecksum, err)
	}
	return header, stamp, nil
}

// ReadStamp reads the beginning of a checksum file: which checkpoint it is of. The error wraps
// ErrChecksum if it is damaged, and ErrVersion if it is of another format version.
func ReadStamp(checksums io.ReaderAt) (binding.Stamp, error) {
	var h [headerSize]byte
	if err := readZeroPadded(checksums, h[:], 0); err != nil {
		return binding.Stamp{}, err
	}
	_, stamp, err := decodeHeader(h[:])
	return stamp, err
}

// place is where in the file the checksum of a page is.
func place(page uint32) int64 { return headerSize + int64(page)*checksumSize }

// readZeroPadded reads len(p) bytes, with zeros for what lies behind the end.
func readZeroPadded(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	clear(p[n:])
	return nil
}
