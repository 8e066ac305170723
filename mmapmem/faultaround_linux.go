package mmapmem

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// faultAround does what the kernel's fault-around would: userfaultfd turns that off. It maps pages
// of the file that are in memory, some with each scan. Otherwise a guest that goes through its
// memory causes a fault, and a scan, with each page: an event that reads one page of 64 MiB for the
// first time takes six times as long (BenchmarkFaultAround).
type faultAround struct {
	next uint32 // pages before have been mapped, if they were in memory
	idle int    // scans that found nothing since the last step
}

const (
	aroundPages = 256  // a step, 1 MiB
	aroundAgain = 1024 // scans that found nothing, until it begins anew
)

func (a *faultAround) step(m *Memory, idle bool) {
	if idle {
		a.idle++
	}
	end := m.pages()
	if a.next >= end && a.idle > aroundAgain {
		a.next = 0 // what has come into memory since
	}
	if a.next >= end {
		return
	}
	a.idle = 0
	r := Run{a.next, min(a.next+aroundPages, end)}
	a.next = r.End
	var inMemory [aroundPages]byte
	if mincore(m.base[uint64(r.First)*PageSize:uint64(r.End)*PageSize], inMemory[:]) != nil {
		return
	}
	wanted := func(p uint32) bool { return inMemory[p-r.First]&1 != 0 && !m.table.refs[p].held() }
	for p := r.First; p < r.End; {
		from := p
		for p < r.End && wanted(p) {
			p++
		}
		if from < p {
			pages := m.live[uint64(from)*PageSize : uint64(p)*PageSize]
			_ = unix.Madvise(pages, unix.MADV_POPULATE_READ)
		}
		for p < r.End && !wanted(p) {
			p++
		}
	}
}

// mincore tells which pages of a mapped file are in memory.
func mincore(mapping []byte, pages []byte) error {
	// Neither slice moves during the call: the mapping is not on Go's heap, pages is kept alive by
	// the caller, and Go's stacks do not move in a system call.
	_, _, errno := unix.Syscall(unix.SYS_MINCORE,
		uintptr(unsafe.Pointer(unsafe.SliceData(mapping))), uintptr(len(mapping)),
		uintptr(unsafe.Pointer(unsafe.SliceData(pages))))
	if errno != 0 {
		return errno
	}
	return nil
}
