package mmrun

// Stats is what an instance has done since it was opened and what it holds now.
type Stats struct {
	Mode        string `json:"mode"`
	Seq         uint64 `json:"seq"`         // of the last commit
	MemoryBytes uint64 `json:"memoryBytes"` // size of the linear memory
	Tracker     string `json:"tracker"`     // how changed pages are found; see package mmapmem
	HotPages    int    `json:"hotPages"`    // 4 KiB pages that each commit compares

	PrivatePages int `json:"privatePages"` // 4 KiB pages held in memory twice: the guest's and a shadow

	Commits     uint64 `json:"commits"`     // since Open, as all below
	Aborts      uint64 `json:"aborts"`      // events that trapped or failed
	Views       uint64 `json:"views"`       // queries
	Checkpoints uint64 `json:"checkpoints"` // finished ones

	WALBytes  uint64 `json:"walBytes"`  // written to the wal
	WALUsed   int64  `json:"walUsed"`   // bytes that a recovery would have to replay from the active segment
	Recovered uint64 `json:"recovered"` // commits that Open replayed from the wal
}

type counters struct {
	commits, aborts, views, checkpoints, recovered uint64
}

// Stats returns a snapshot. It waits for the event in progress.
func (in *Instance) Stats() Stats {
	in.mu.Lock()
	defer in.mu.Unlock()
	s := Stats{
		Mode: in.mode.String(), Seq: in.state.Seq,
		MemoryBytes: uint64(in.state.MemoryPages) << 16,
		Commits:     in.counters.commits, Aborts: in.counters.aborts, Views: in.counters.views,
		Checkpoints: in.counters.checkpoints, Recovered: in.counters.recovered,
	}
	if !in.closed {
		in.keeper.stats(&s)
	}
	return s
}
