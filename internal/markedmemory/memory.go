// Package markedmemory lets a memory's tracker know what a host writes through wazero's interface.
//
// wazero's api.Memory has a method WriteByte with an offset, which go vet's check of standard
// methods takes for a mistake: CI leaves that one check out.
package markedmemory

import (
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/mmapmem"
)

// Memory is a guest's memory whose tracker is told what is written. What Read gives can be written
// to as well.
type Memory struct {
	api.Memory
	Tracked *mmapmem.Memory
}

// Read is that of api.Memory.
func (m Memory) Read(offset, n uint32) ([]byte, bool) {
	m.Tracked.MarkWritten(offset, n)
	return m.Memory.Read(offset, n)
}

// Write is that of api.Memory.
func (m Memory) Write(offset uint32, b []byte) bool {
	m.Tracked.MarkWritten(offset, uint32(len(b)))
	return m.Memory.Write(offset, b)
}

// WriteString is that of api.Memory.
func (m Memory) WriteString(offset uint32, s string) bool {
	m.Tracked.MarkWritten(offset, uint32(len(s)))
	return m.Memory.WriteString(offset, s)
}

// WriteByte is that of api.Memory.
func (m Memory) WriteByte(offset uint32, v byte) bool {
	m.Tracked.MarkWritten(offset, 1)
	return m.Memory.WriteByte(offset, v)
}

// WriteUint16Le is that of api.Memory.
func (m Memory) WriteUint16Le(offset uint32, v uint16) bool {
	m.Tracked.MarkWritten(offset, 2)
	return m.Memory.WriteUint16Le(offset, v)
}

// WriteUint32Le is that of api.Memory.
func (m Memory) WriteUint32Le(offset, v uint32) bool {
	m.Tracked.MarkWritten(offset, 4)
	return m.Memory.WriteUint32Le(offset, v)
}

// WriteFloat32Le is that of api.Memory.
func (m Memory) WriteFloat32Le(offset uint32, v float32) bool {
	m.Tracked.MarkWritten(offset, 4)
	return m.Memory.WriteFloat32Le(offset, v)
}

// WriteUint64Le is that of api.Memory.
func (m Memory) WriteUint64Le(offset uint32, v uint64) bool {
	m.Tracked.MarkWritten(offset, 8)
	return m.Memory.WriteUint64Le(offset, v)
}

// WriteFloat64Le is that of api.Memory.
func (m Memory) WriteFloat64Le(offset uint32, v float64) bool {
	m.Tracked.MarkWritten(offset, 8)
	return m.Memory.WriteFloat64Le(offset, v)
}
