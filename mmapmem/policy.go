package mmapmem

// policy says when pages that come to rest are given back, and when that wants a checkpoint. All
// its constants are here:
//
//	constant        what it bounds                       chosen by
//	idleCommits     comparisons before an eviction       BenchmarkPart in bench: 40 comparisons
//	                                                     are as much as madvise, the fault that
//	                                                     brings the page back, and its share of a
//	                                                     checkpoint (5 µs)
//	evictBatch      the pause put into one commit        ratios -run checkpoint in bench: "longest
//	                                                     pause"; 1024 pages are 1 ms
//	evictLook       the same, when few pages rest        the same; 16384 looks are 0.05 ms
//	crowdedHeld     shadows before a checkpoint is       64 MiB, a quarter of what ratios -run
//	                asked for                            memory allows beside a guest of 1 GiB
//	keptGuarded     the same, where held pages cost      320 MiB, of the 512 of mostHeld
//	                events nothing
//	mostHeld        shadows at all: then events wait     512 MiB; a promise, not a measurement
//	mostNew         shadows that one event may add       ratios -run memory: "an event that changes
//	                                                     1 GiB: memory beyond the guest's own"
//	wasteBase       comparisons for nothing that are     BenchmarkCheckpointSums: a checkpoint of
//	                worth a checkpoint                   few pages is 0.5 ms
//	wastePerPage    the same, for each compared page     as idleCommits
//	keptNew         new pages that a rollback keeps      BenchmarkView in bench: putting bytes
//	                                                     back is a tenth of a drop and a fault
//	keptHeld        shadows with which it keeps none     16 MiB: queries alone lead to no
//	                                                     checkpoint, and so to no eviction
type policy struct {
	now    uint64 // seq of the last commit
	inFile uint64 // the bytes of all commits up to this one are in the file
	// look is how many entries of the page table the eviction under way has yet to look at, from
	// the first on; 0 if there is none.
	look int
	// wasted counts comparisons of pages that had not changed, since all were last guarded or those
	// that rest were evicted.
	wasted int

	idle    uint64 // idleCommits
	batch   int    // evictBatch
	crowded int    // crowdedHeld, or keptGuarded
	keep    int    // so many shadows are kept although their pages rest: 0, or keptGuarded
}

func newPolicy() policy {
	return policy{idle: idleCommits, batch: evictBatch, crowded: crowdedHeld}
}

// keepHeld is for a tracker with which held pages cost an event nothing: to give one back and have
// it copied again by the kernel would be dearer, so only want of memory is a reason.
func (p *policy) keepHeld() { p.crowded, p.keep = keptGuarded, keptGuarded }

const (
	idleCommits             = 40
	evictBatch              = 1024
	evictLook               = 16384
	crowdedHeld             = 16384
	keptGuarded             = 81920
	mostHeld                = 131072
	mostNew                 = 8192
	wasteBase, wastePerPage = 4096, 32
	keptNew                 = 64
	keptHeld                = 4096
)

// rests tells whether a page may be evicted: its bytes are in the file, and no late commit has
// changed it.
func (p *policy) rests(h *heldPage) bool {
	return h.changed <= p.inFile && p.now-h.changed >= p.idle
}

// wantsCheckpoint tells whether pages should come to rest in the file: there are many, or comparing
// those that do not change has cost more than a checkpoint would.
func (p *policy) wantsCheckpoint(t *pageTable) bool {
	switch {
	case p.look > 0:
		return false // what rests already is being evicted
	case p.wasted > wasteBase+wastePerPage*t.copied:
		return true
	}
	return len(t.held) > p.crowded && p.now-p.inFile >= idleCommits
}

// tooMany tells whether an event that has found so many new pages has to go to the file before it
// is kept.
func (p *policy) tooMany(t *pageTable, found int) bool {
	return found > mostNew || len(t.held)+found > mostHeld
}
