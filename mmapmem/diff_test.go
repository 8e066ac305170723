package mmapmem

import (
	"testing"

	"pgregory.net/rapid"
)

// pagePair draws a page and the same page with a few runs of bytes changed, some to what they were.
func pagePair(t *rapid.T) (now, old *[PageSize]byte) {
	now, old = new([PageSize]byte), new([PageSize]byte)
	fill := rapid.Byte().Draw(t, "fill")
	for i := range old {
		old[i] = fill + byte(i>>6)
	}
	*now = *old
	for range rapid.IntRange(0, 40).Draw(t, "runs") {
		at := rapid.IntRange(0, PageSize-1).Draw(t, "at")
		n := rapid.OneOf(rapid.IntRange(1, 24), rapid.IntRange(1, PageSize)).Draw(t, "length")
		add := rapid.Byte().Draw(t, "add")
		for i := at; i < min(at+n, PageSize); i++ {
			now[i] = old[i] + add
		}
	}
	return now, old
}

// The ranges hold every byte that differs: put over the old page they give the new one.
func TestDiffAppliedGivesTheNewPage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now, old := pagePair(t)
		page := rapid.Uint32Range(0, MaxWasmPages*16-1).Draw(t, "page")
		before := Range{1, 2}
		ranges := appendDiff([]Range{before}, page, now, old)
		if ranges[0] != before {
			t.Fatal("earlier ranges were changed")
		}
		patched := *old
		end := uint64(page) * PageSize
		for _, r := range ranges[1:] {
			if uint64(r.Offset) < end {
				t.Fatalf("range %+v begins before %d", r, end)
			}
			end = uint64(r.Offset) + uint64(r.Len)
			at := r.Offset - page*PageSize
			if r.Len == 0 || r.Offset%8 != 0 || r.Len%8 != 0 || end > uint64(page+1)*PageSize {
				t.Fatalf("range %+v is empty, no whole words or outside of page %d", r, page)
			}
			copy(patched[at:at+r.Len], now[at:])
		}
		if patched != *now {
			t.Error("the ranges leave a difference out")
		}
		if n := len(ranges) - 1; n > maxRangesPerPage {
			t.Errorf("%d ranges, at most %d are promised", n, maxRangesPerPage)
		}
		if *now == *old && len(ranges) > 1 {
			t.Errorf("equal pages gave ranges: %+v", ranges[1:])
		}
	})
}

func TestDiffJoinsWhatIsClose(t *testing.T) {
	for _, c := range []struct {
		changed []int // offsets of changed bytes
		want    []Range
	}{
		{nil, nil},
		{[]int{0}, []Range{{0, 8}}},
		{[]int{7, 8}, []Range{{0, 16}}},
		{[]int{PageSize - 1}, []Range{{PageSize - 8, 8}}},
		{[]int{0, 8 + diffGap}, []Range{{0, 16 + diffGap}}},
		{[]int{0, 16 + diffGap}, []Range{{0, 8}, {16 + diffGap, 8}}},
		{[]int{diffChunk - 1, diffChunk}, []Range{{diffChunk - 8, 16}}},
		{[]int{0, 2000, 4000}, []Range{{0, 8}, {2000, 8}, {4000, 8}}},
	} {
		var now, old [PageSize]byte
		for _, at := range c.changed {
			now[at]++
		}
		got := appendDiff(nil, 3, &now, &old)
		if len(got) != len(c.want) {
			t.Errorf("changed %d: %+v, want %+v", c.changed, got, c.want)
			continue
		}
		for i, r := range got {
			if want := (Range{3*PageSize + c.want[i].Offset, c.want[i].Len}); r != want {
				t.Errorf("changed %d: range %d is %+v, want %+v", c.changed, i, r, want)
			}
		}
	}
}
