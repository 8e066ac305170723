package mmapmem

import (
	"bytes"
	"encoding/binary"
)

const (
	// diffChunk is what is skipped at once when equal. Comparing in chunks costs no more than
	// comparing the page as a whole, and leaves little to look at when they differ.
	diffChunk = 256
	// diffGap: two changes that lie at most this many bytes apart make one range, because a
	// range of its own costs the wal about as much.
	diffGap = 16
	// maxRangesPerPage bounds what an event's ranges take: a page with more becomes one range.
	maxRangesPerPage = 16
)

// appendDiff appends the ranges, in whole words of 8 bytes, in which now differs from old. page
// is the index of the page that both are.
func appendDiff(ranges []Range, page uint32, now, old *[PageSize]byte) []Range {
	first := len(ranges)
	start, end := -1, -1 // the open range, as offsets in the page
	for c := 0; c < PageSize; c += diffChunk {
		if bytes.Equal(now[c:c+diffChunk], old[c:c+diffChunk]) {
			continue
		}
		for w := c; w < c+diffChunk; w += 8 {
			if binary.NativeEndian.Uint64(now[w:]) == binary.NativeEndian.Uint64(old[w:]) {
				continue
			}
			if start >= 0 && w-end > diffGap {
				ranges = append(ranges, Range{page*PageSize + uint32(start), uint32(end - start)})
				start = -1
			}
			if start < 0 {
				start = w
			}
			end = w + 8
		}
	}
	if start < 0 {
		return ranges
	}
	ranges = append(ranges, Range{page*PageSize + uint32(start), uint32(end - start)})
	if len(ranges)-first > maxRangesPerPage {
		from := ranges[first].Offset
		ranges = append(ranges[:first], Range{from, page*PageSize + uint32(end) - from})
	}
	return ranges
}
