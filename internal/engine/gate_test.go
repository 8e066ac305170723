package engine

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// One at a time gets in, everybody does, and whoever gives up leaves no hole.
func TestGateLetsOneInAtATime(t *testing.T) {
	g := newGate()
	var wg sync.WaitGroup
	inside, entries := 0, 0
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				short, cancel := context.WithTimeout(context.Background(), time.Microsecond)
				if err := g.enter(short); err == nil {
					g.leave()
				} else if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
				if err := g.enter(context.Background()); err != nil {
					t.Error(err)
				}
				if inside++; inside != 1 {
					t.Errorf("%d are inside", inside)
				}
				entries++
				inside--
				g.leave()
			}
		})
	}
	wg.Wait()
	if entries != 8000 {
		t.Errorf("%d entries, want 8000", entries)
	}
}
