//go:build !linux

package mmapmem

import (
	"errors"
	"os"

	"github.com/edsrzf/mmap-go"
)

func mapLive(f *os.File, length int, kind Kind) ([]byte, error) {
	prot := mmap.RDWR
	if kind == Private {
		prot = mmap.COPY
	}
	return mmap.MapRegion(f, length, prot, 0, 0)
}

func mapBase(f *os.File, length int) ([]byte, error) {
	return mmap.MapRegion(f, length, mmap.RDONLY, 0, 0)
}

func unmap(b []byte) error { return (*mmap.MMap)(&b).Unmap() }

// reclaim: not every system can give back a part of a mapping.
func reclaim([]byte) error { return errors.ErrUnsupported }

// holesTakeRoom is for file systems that are not met here.
func holesTakeRoom(*os.File) bool { return false }

// mapLimit names the limit that a mapping has met, where that can be known.
func mapLimit(err error) error { return err }

// spareMappings: no limit is known.
func spareMappings() error { return nil }
