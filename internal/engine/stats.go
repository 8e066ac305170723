package engine

import (
	"sync"
	"sync/atomic"
)

// Stats has the fields of the root's type of that name, which says what they are.
type Stats struct {
	Mode          string
	Seq           uint64
	MemoryBytes   uint64
	Tracker       string
	TrackerReason string
	ComparedPages int
	ComparedAll   uint64
	PrivatePages  int

	Commits, Aborts, Views, Checkpoints, CheckpointFailures uint64

	WALBytes  uint64
	WALUsed   int64
	Recovered uint64
}

// statsKeeper holds what the last quiescent point that was asked has told.
type statsKeeper struct {
	statsMu     sync.Mutex
	lastStats   Stats
	statsWanted atomic.Bool // by somebody who found an event running
}

// counters of a store are written with the gate held and read at any time.
type counters struct {
	commits, aborts, views, checkpoints, failures atomic.Uint64
	recovered                                     uint64 // set before the store is given out
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
	st.Mode, st.Seq, st.TrackerReason = s.mode.String(), s.Seq(), s.trackerWhy
	st.Commits, st.Aborts = s.counters.commits.Load(), s.counters.aborts.Load()
	st.Views, st.Checkpoints = s.counters.views.Load(), s.counters.checkpoints.Load()
	st.CheckpointFailures = s.counters.failures.Load()
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
