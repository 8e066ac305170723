package binding

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
)

func TestGoldenBytes(t *testing.T) {
	b := make([]byte, HeaderLength)
	h := NewHeader(Stamp{Seq: 7, Checkpoint: 0x1122334455667788, Before: 0x99aabbccddeeff00,
		Stretch: 5})
	h.Encode(b)
	h.Set(b, Stamp{Seq: 8, Checkpoint: 2, Before: 0x1122334455667788, Stretch: 6})
	head, rest := "6d6d72756e53554d"+"02000000"+"00100000", strings.Repeat("00", 512-64)
	// The checksums are from another implementation.
	old := head + "0700000000000000" + "8877665544332211" + "00ffeeddccbbaa99" +
		"0500000000000000" + "0100000000000000" + "00000000" + "895f5c02" + rest
	now := head + "0800000000000000" + "0200000000000000" + "8877665544332211" +
		"0600000000000000" + "0200000000000000" + "00000000" + "95111a7e" + rest
	want := old + now + old
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestDamageToOneCopyOfAStampIsFoundAndTheOtherCounts(t *testing.T) {
	b := make([]byte, HeaderLength)
	older, newer := Stamp{Seq: 1, Checkpoint: 2}, Stamp{Seq: 3, Checkpoint: 4, Before: 2}
	// The new stamp is in copy 1.
	h := NewHeader(older)
	h.Encode(b)
	h.Set(b, newer)
	stamp := func(b []byte) Stamp {
		h, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.Stamp()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for i, want := range []Stamp{newer, older, newer} {
		for bit := range 8 * copyLength {
			at := i*copyStep + bit/8
			b[at] ^= 1 << (bit % 8)
			if got := stamp(b); got != want {
				t.Fatalf("copy %d, bit %d: %v", i, bit, got)
			}
			b[at] ^= 1 << (bit % 8)
		}
	}
	for length := range copyLength {
		h, err := Decode(b[:length])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := h.Stamp(); !errors.Is(err, ErrMix) {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
	b[copyStep+8] = 3
	c := b[copyStep:]
	binary.LittleEndian.PutUint32(c[crcAt:], crc32.Checksum(c[:crcAt], castagnoli))
	if _, err := Decode(b); !errors.Is(err, ErrVersion) ||
		!strings.Contains(err.Error(), "format version 3, this program reads version 2") {
		t.Error(err)
	}
}

// Neither the copy that goes with the slot is overwritten, nor the one that counts, however often a
// checkpoint is cut off and whatever is torn.
func TestStampsThatMayBeNeededStay(t *testing.T) {
	b := make([]byte, HeaderLength)
	slot := Stamp{Seq: 1, Checkpoint: 2}
	h := NewHeader(slot)
	h.Encode(b)
	for seq := uint64(2); seq < 20; seq++ {
		before, err := h.Stamp()
		if err != nil {
			t.Fatal(err)
		}
		s := Stamp{Seq: seq, Checkpoint: 10 + seq, Before: 2}
		h.Set(b, s)
		var kept []Stamp
		for i, c := range h.copies {
			if c.err == nil {
				kept = append(kept, c.Stamp)
			}
			if c.Stamp == s && seq%3 == 0 { // torn
				b[i*copyStep+20]++
			}
		}
		if !slices.Contains(kept, slot) || !slices.Contains(kept, before) ||
			!slices.Contains(kept, s) {
			t.Fatalf("%d: %v", seq, kept)
		}
		if h, err = Decode(b); err != nil {
			t.Fatal(err)
		}
		want := s
		if seq%3 == 0 {
			want = before
		}
		if got, err := h.Stamp(); got != want || err != nil {
			t.Fatalf("%d: %v %v, want %v", seq, got, err, want)
		}
	}
}

func TestCheck(t *testing.T) {
	const slot, other, stretch = 77, 88, 5
	at := Stamp{Seq: 10, Checkpoint: slot}
	cutOff := Stamp{Seq: 12, Checkpoint: other, Before: slot, Stretch: stretch}
	log := Files{SlotSeq: 10, Slot: slot, Last: 13, First: slot, Stretch: stretch, Memory: true}
	rest := Files{SlotSeq: 10, Slot: slot, Last: 10, Memory: true}
	for name, c := range map[string]struct {
		files Files
		stamp Stamp
		fits  bool
	}{
		"at rest":            {rest, at, true},
		"commits in the log": {log, at, true},
		"cut off":            {log, cutOff, true},
		"no memory": {Files{SlotSeq: 10, Slot: slot, Last: 10}, Stamp{},
			true},
		"checksums of another checkpoint":  {rest, Stamp{Seq: 10, Checkpoint: other}, false},
		"checksums of another commit":      {rest, Stamp{Seq: 11, Checkpoint: slot}, false},
		"cut off, and the log is not here": {rest, cutOff, false},
		"cut off behind the log": {log, Stamp{Seq: 14, Checkpoint: other, Before: slot,
			Stretch: stretch}, false},
		"cut off, by way of another log": {log, Stamp{Seq: 12, Checkpoint: other, Before: slot,
			Stretch: 6}, false},
		"cut off, after another checkpoint": {log, Stamp{Seq: 12, Checkpoint: 99, Before: other,
			Stretch: stretch}, false},
		"log after another checkpoint": {Files{SlotSeq: 10, Slot: slot, Last: 13, First: other,
			Memory: true}, at, false},
		"log of another state, no memory": {Files{SlotSeq: 10, Slot: slot, Last: 11, First: other},
			Stamp{}, false},
	} {
		c.files.Stamp = c.stamp
		if err := c.files.Check(); (err == nil) != c.fits || err != nil && !errors.Is(err, ErrMix) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
