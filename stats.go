package mmrun

// Stats is what an instance has done since it was opened and what it holds now.
type Stats struct {
	Mode        string `json:"mode"`
	Seq         uint64 `json:"seq"`         // of the last commit
	MemoryBytes uint64 `json:"memoryBytes"` // size of the linear memory
	Tracker     string `json:"tracker"`     // how changed pages are found; see package mmapmem
	// TrackerReason is why that way was chosen when the state was opened.
	TrackerReason string `json:"trackerReason"`
	// ComparedPages is how many 4 KiB pages each commit compares.
	ComparedPages int `json:"comparedPages"`
	// ComparedAll is how many events have had all pages compared, since Open: with the tracker
	// Barrier those in which a host function was called that may have written anything.
	ComparedAll uint64 `json:"comparedAll"`

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

// Stats returns a snapshot. It does not wait for an event in progress: meanwhile the sizes are those
// of an earlier quiescent point, the counters those of now.
func (in *Instance) Stats() Stats { return Stats(in.store.Stats()) }
