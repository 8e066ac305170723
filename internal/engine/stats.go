package engine

import (
	"sync"
	"sync/atomic"
)

// Stats is what an instance has done since it was opened and what it holds now.
type Stats struct {
	Mode        string `json:"mode"`
	Seq         uint64 `json:"seq"`         // of the last commit
	MemoryBytes uint64 `json:"memoryBytes"` // size of the linear memory
	Tracker     string `json:"tracker"`     // how changed pages are found; see package mmapmem
	HotPages    int    `json:"hotPages"`    // 4 KiB pages that each commit compares

	// PrivatePages is how many 4 KiB pages are held in memory twice: the guest's and a shadow.
	PrivatePages int `json:"privatePages"`

	Commits     uint64 `json:"commits"`     // since Open, as all below
	Aborts      uint64 `json:"aborts"`      // events that trapped or failed
	Views       uint64 `json:"views"`       // queries
	Checkpoints uint64 `json:"checkpoints"` // finished ones

	WALBytes uint64 `json:"walBytes"` // written to the log
	// WALUsed is how many bytes of the active segment a recovery would have to replay.
	WALUsed   int64  `json:"walUsed"`
	Recovered uint64 `json:"recovered"` // commits that Open replayed from the log
}

// statsKeeper holds what the last quiescent point that was asked has told.
type statsKeeper struct {
	statsMu     sync.Mutex
	lastStats   Stats
	statsWanted atomic.Bool // by somebody who found an event running
}

// counters of a store are written with the gate held and read at any time.
type counters struct {
	commits, aborts, views, checkpoints atomic.Uint64
	recovered                           uint64 // set before the store is given out
}

// Stats is a snapshot. It does not wait for an event: while one runs, what only a quiescent point
// can tell is as of an earlier one.
func (s *Store) Stats() Stats {
	if s.gate.tryEnter() {
		s.refreshStats()
		s.gate.leave()
	} else {
		s.statsWanted.Store(true)
	}
	s.statsMu.Lock()
	st := s.lastStats
	s.statsMu.Unlock()
	st.Mode, st.Seq = s.mode.String(), s.Seq()
	st.Commits, st.Aborts = s.counters.commits.Load(), s.counters.aborts.Load()
	st.Views, st.Checkpoints = s.counters.views.Load(), s.counters.checkpoints.Load()
	st.Recovered = s.counters.recovered
	return st
}

// refreshStats asks at a quiescent point, with the gate held.
func (s *Store) refreshStats() {
	if s.phase != idle || s.closed.Load() {
		return
	}
	s.statsMu.Lock()
	defer s.statsMu.Unlock()
	s.statsWanted.Store(false)
	s.lastStats = Stats{MemoryBytes: uint64(s.state.MemoryPages) << 16}
	s.keep.stats(&s.lastStats)
}
