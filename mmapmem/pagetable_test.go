package mmapmem

import (
	"testing"

	"pgregory.net/rapid"
)

// The table agrees with one that is kept by a map, whatever happens to its pages.
func TestPageTableKnowsTheStateOfEachPage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const pages = 20
		var table pageTable
		want := map[uint32]pageState{}
		shadow := map[uint32]*[PageSize]byte{}
		page := rapid.Uint32Range(0, pages-1)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch p := page.Draw(t, "page"); rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				table.guard()
				for p, s := range want {
					if s == stateCopied {
						want[p] = stateGuarded
					}
				}
			case 1, 2, 3:
				table.cover(p + 1)
				if got := table.found(p); got != (want[p] == stateClean) {
					t.Errorf("found says %t of page %d, which was %v", got, p, want[p])
				}
				switch want[p] {
				case stateClean:
					want[p] = stateNew
				case stateGuarded:
					want[p] = stateCopied
				}
			case 4, 5, 6:
				if s := want[p]; s == stateNew {
					shadow[p] = new([PageSize]byte)
					table.hold(heldPage{page: p, shadow: shadow[p]})
					want[p] = stateCopied
				}
			default:
				if s := want[p]; s == stateCopied || s == stateGuarded {
					h := table.release(table.ref(p).index())
					if h.page != p || h.shadow != shadow[p] {
						t.Errorf("page %d was released as %d", p, h.page)
					}
					want[p] = stateClean
				}
			}
			copied, held := 0, 0
			for p := range uint32(pages) {
				if got := table.state(p); got != want[p] {
					t.Fatalf("page %d is %v, want %v", p, got, want[p])
				}
				switch want[p] {
				case stateCopied:
					copied++
					held++
				case stateGuarded:
					held++
				}
				if ref := table.ref(p); ref.held() && table.held[ref.index()].shadow != shadow[p] {
					t.Fatalf("page %d has another one's shadow", p)
				}
			}
			if table.copied != copied || len(table.held) != held {
				t.Fatalf("%d of %d pages are copied, want %d of %d",
					table.copied, len(table.held), copied, held)
			}
		}
	})
}
