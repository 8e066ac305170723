package guest

import (
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
)

// Marks tell which pages the guest has written, nil if its code does not say.
func (g *Guest) Marks() mmapmem.Marks {
	if g.form.info.Barrier == nil {
		return nil
	}
	return &g.marks
}

// marks reads what the barrier of a module has noted; see rewriter.Barrier.
type marks struct {
	g          *Guest
	generation uint64 // of the guest that the rest belongs to
	barrier    *rewriter.Barrier

	count, host, active api.Global
	// told has a bit for each of the calls that host counts: it has said what it writes. tells is
	// how many have.
	told         []uint64
	tells        int
	pages        []api.Global // looked up when they are needed
	next, forget api.Function
	stack        [1]uint64
}

// resolve looks up what has been looked up in an earlier generation.
func (m *marks) resolve() {
	if m.generation == m.g.generation {
		return
	}
	m.generation, m.barrier = m.g.generation, m.g.form.info.Barrier
	mod := m.g.mod
	m.count, m.host = mod.ExportedGlobal(m.barrier.Count), mod.ExportedGlobal(m.barrier.Host)
	m.active = mod.ExportedGlobal(m.barrier.Active)
	m.forget = mod.ExportedFunction(m.barrier.Forget)
	m.pages, m.next = m.pages[:0], nil
	m.told, m.tells = m.told[:0], 0
}

// HostTells implements mmapmem.Marks.
func (m *marks) HostTells() {
	m.resolve()
	// Calls nest: one that told before may tell again when those that it has led to have ended.
	call := uint32(m.active.Get())
	if call == 0 {
		return
	}
	for int(call/64) >= len(m.told) {
		m.told = append(m.told, 0)
	}
	if bit := uint64(1) << (call % 64); m.told[call/64]&bit == 0 {
		m.told[call/64] |= bit
		m.tells++
	}
}

// Marked implements mmapmem.Marks.
func (m *marks) Marked(found func(page uint32)) (known bool) {
	m.resolve()
	count := int32(m.count.Get())
	switch {
	case count < 0, m.barrier.HostHidden, int(uint32(m.host.Get())) != m.tells:
		return false
	case int(count) <= len(m.barrier.Pages):
		for i := range int(count) {
			if i == len(m.pages) {
				m.pages = append(m.pages, m.g.mod.ExportedGlobal(m.barrier.Pages[i]))
			}
			found(uint32(m.pages[i].Get()))
		}
		return true
	}
	if m.next == nil {
		m.next = m.g.mod.ExportedFunction(m.barrier.Next)
	}
	for from := uint64(0); ; from++ {
		m.stack[0] = from
		if m.next.CallWithStack(m.g.base, m.stack[:]) != nil {
			return false // the guest has ended itself
		}
		page := uint32(m.stack[0])
		if int32(page) == -1 {
			return true
		}
		found(page)
		from = uint64(page)
	}
}

// Forget implements mmapmem.Marks.
func (m *marks) Forget() (known bool) {
	m.resolve()
	if int32(m.count.Get()) == 0 && int32(m.host.Get()) == 0 {
		return true
	}
	m.told, m.tells = m.told[:0], 0
	return m.forget.CallWithStack(m.g.base, m.stack[:0]) == nil
}
