//go:build !linux

package mmapmem

import (
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

// dropRange makes live show the bytes of the file again. It keeps its private pages: not every
// system can give back a part of a mapping.
func dropRange(live, base []byte) (stuck bool, err error) {
	copy(live, base)
	return true, nil
}

// holesTakeRoom is for file systems that are not met here.
func holesTakeRoom(*os.File) bool { return false }
