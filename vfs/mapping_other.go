//go:build !linux

package vfs

import "github.com/edsrzf/mmap-go"

// mappingKeepsFile: msync does not empty the disk's cache on macOS (F_FULLFSYNC does), and
// FlushViewOfFile does not on Windows (FlushFileBuffers does). Both need the open file.
const mappingKeepsFile = false

func (m *osMapping) sync() error { return syncData(m.file.File, []mmap.MMap{m.mapped}) }

func (m *osMapping) Prefault(offset, length int64) {}
