package mmapmem

import (
	"bytes"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// Verify names exactly the pages that were changed after their sums were noted, also where memory or sums end early
// because all that follows is zeros.
func TestVerifyNamesTheDamagedPages(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.IntRange(1, 700).Draw(t, "pages")
		memory := make([]byte, pages*PageSize)
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			at := rapid.IntRange(0, len(memory)-1).Draw(t, "at")
			memory[at] = rapid.Byte().Draw(t, "byte")
		}
		sumsFile := newFile(t, dir, "sums")
		sums := NewSums(sumsFile)
		if err := sums.Build(bytes.NewReader(memory), uint64(len(memory))); err != nil {
			t.Fatal(err)
		}
		var want []uint32
		for range rapid.IntRange(0, 5).Draw(t, "flips") {
			at := rapid.IntRange(0, len(memory)-1).Draw(t, "flip")
			memory[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			if page := uint32(at / PageSize); !slices.Contains(want, page) {
				want = append(want, page)
			} else {
				memory[at] ^= 0xff // never back to what it was
			}
		}
		slices.Sort(want)
		var bad []uint32
		size := uint64(len(memory))
		noted := bytes.TrimRight(contents(t, sumsFile), "\x00")
		err := Verify(bytes.NewReader(bytes.TrimRight(memory, "\x00")), bytes.NewReader(noted), size,
			func(page uint32) { bad = append(bad, page) })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(bad, want) {
			t.Errorf("pages %d were named, %d were damaged", bad, want)
		}
	})
}

// A memory of zeros needs no sums, and any page can tell that it is not zeros.
func TestSumOfZerosIsZero(t *testing.T) {
	page := make([]byte, PageSize)
	if got := pageSum(page); got != 0 {
		t.Errorf("the sum of zeros is %#x, want 0", got)
	}
	for bit := range PageSize * 8 {
		page[bit/8] ^= 1 << (bit % 8)
		if pageSum(page) == 0 {
			t.Fatalf("a page with bit %d set has the sum of zeros", bit)
		}
		page[bit/8] = 0
	}
}

// Whoever is killed while it stores a sum leaves the old one or the new one. A reader that looks all the time would see
// anything else.
func TestSumIsNeverHalfStored(t *testing.T) {
	f := newFile(t, t.TempDir(), "sums")
	sums := NewSums(f)
	const page, one, other = 3, 0x01020304, 0xfefdfcfb
	if err := sums.set(page, one); err != nil {
		t.Fatal(err)
	}
	mapped, err := f.Map(sumsUnit) // another view, so that this is no data race
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	halves := make(chan uint32)
	go func() {
		var half uint32
		for {
			select {
			case <-stop:
				halves <- half
				return
			default:
			}
			if v := atomic.LoadUint32((*uint32)(unsafe.Pointer(&mapped[page*sumSize]))); v != one && v != other {
				half = v
			}
		}
	}()
	for range 200_000 {
		if err := errors.Join(sums.set(page, other), sums.set(page, one)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if half := <-halves; half != 0 {
		t.Errorf("seen: %08x", half)
	}
}
