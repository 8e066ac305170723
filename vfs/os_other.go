//go:build !linux

package vfs

import (
	"os"
	"runtime"

	"github.com/edsrzf/mmap-go"
)

// dirSyncWorks: Windows cannot open a directory for syncing, and NTFS journals its entries.
const dirSyncWorks = runtime.GOOS != "windows"

func syncData(f *os.File, mappings []mmap.MMap) error {
	for _, m := range mappings {
		if err := m.Flush(); err != nil {
			return err
		}
	}
	return f.Sync()
}

func allocate(f *os.File, offset, length int64) error {
	return allocateByWriting(f, offset, length)
}

// checkSize: elsewhere a file that grows too large is an error of the call itself.
func checkSize(int64) error { return nil }
