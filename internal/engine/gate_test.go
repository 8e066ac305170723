package engine

import (
	"context"
	"errors"
	"runtime"
	"slices"
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

// Whoever came first is let in first, and those who give up are in nobody's way.
func TestGateKeepsTheOrder(t *testing.T) {
	g := newGate()
	if err := g.enter(context.Background()); err != nil {
		t.Fatal(err)
	}
	var order []int
	var all sync.WaitGroup
	var cancels []context.CancelFunc
	for i := range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		cancels = append(cancels, cancel)
		before := g.waiting()
		all.Go(func() {
			if g.enter(ctx) != nil {
				return
			}
			order = append(order, i)
			g.leave()
		})
		for g.waiting() == before {
			runtime.Gosched()
		}
	}
	for i := 3; i < 20; i += 4 {
		cancels[i]()
	}
	for g.waiting() > 15 {
		runtime.Gosched()
	}
	g.leave()
	all.Wait()
	want := []int{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 18}
	if !slices.Equal(order, want) {
		t.Errorf("%v, want %v", order, want)
	}
	if !g.tryEnter() {
		t.Error("the gate is not free")
	}
	for _, cancel := range cancels {
		cancel()
	}
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.queue)
}
