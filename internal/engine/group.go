package engine

import (
	"runtime"
	"sync"
)

// syncGroup lets one sync serve all who wait for one. A mutex alone does not: whoever comes takes
// it before those who have waited, and syncs what has been synced already but for its own commit
// (BenchmarkDurable in bench).
type syncGroup struct {
	mu      sync.Mutex
	changed sync.Cond // its L is mu, set by the first who waits
	done    uint64    // up to which commit all is durable
	running bool
}

// wait returns when the commits up to seq are durable. sync makes them so, and says up to which. An
// error goes to whoever made the sync; the others try again and find what it has left.
func (g *syncGroup) wait(seq uint64, sync func() (uint64, error)) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changed.L = &g.mu
	for g.done < seq {
		if g.running {
			g.changed.Wait()
			continue
		}
		if err := g.lead(sync); err != nil {
			return err
		}
	}
	return nil
}

// lead is one sync, without the mutex.
func (g *syncGroup) lead(sync func() (uint64, error)) (err error) {
	g.running = true
	g.mu.Unlock()
	done := uint64(0)
	defer func() { // also if it panics
		g.mu.Lock()
		g.running = false
		g.done = max(g.done, done)
		g.changed.Broadcast()
	}()
	runtime.Gosched() // those who were served by the sync before may commit first
	to, err := sync()
	if err == nil {
		done = to
	}
	return err
}
