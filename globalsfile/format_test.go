package globalsfile

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func unhex(t *testing.T, lines ...string) []byte {
	t.Helper()
	return must[[]byte](t)(hex.DecodeString(strings.ReplaceAll(strings.Join(lines, ""), " ", "")))
}

// The bytes are part of the promise: a state directory outlives the program that wrote it.
func TestGoldenBytes(t *testing.T) {
	h := Header{Mode: Continuous, Clean: true}
	for i := range h.Module {
		h.Module[i] = byte(0xa0 + i)
	}
	for i := range h.BootID {
		h.BootID[i] = byte(i + 1)
	}
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", h, &State{
		Seq: 7, MemoryPages: 17,
		Globals: []Value{{Type: 0x7f, Lo: 0xfffffff0},
			{Type: 0x7b, Lo: 0x1122334455667788, Hi: 0x99aabbccddeeff00}},
		Tables:  [][]int32{{3, -1}, {}},
		Dropped: []bool{true, false, false, false, false, false, false, false, false, true},
		Meta:    []byte("cursor"),
		Binding: 0x0102030405060708,
	}))
	f.BeginEvent(8)

	header := unhex(t,
		"6d6d72756e474c42",                 // magic
		"02000000 00100000",                // format version, page size
		"0100000000000000",                 // generation
		"0010000000000000",                 // slot capacity
		"0000000000000000",                 // feature flags
		"02000000 01000000",                // continuous, clean
		"0102030405060708090a0b0c0d0e0f10", // boot id
		"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf", "b0b1b2b3b4b5b6b7b8b9babbbcbdbebf",
		strings.Repeat("00", 28),
		"3f27b0d6")
	// The checksums are from another implementation.
	slot := func(write string, crc ...string) []byte {
		return unhex(t,
			write,              // write number
			"0700000000000000", // sequence number
			"6e000000", crc[0], // length of the list
			"03 22", // globals
			"7f f0ffffff00000000 0000000000000000",
			"7b 8877665544332211 00ffeeddccbbaa99", crc[1],
			"05 06 0a000000 0102", crc[2], // of ten segments the first and the tenth are dropped
			"07 10 02000000 03000000 ffffffff 00000000", crc[3], // a table of two, an empty one
			"09 06 637572736f72", crc[4], // metadata
			"0b 04 11000000", crc[5], // memory pages
			"0d 08 0807060504030201", crc[6]) // binding
	}
	want := make([]byte, 8192+2*4096)
	copy(want[0:], header)
	copy(want[4096:], header)
	copy(want[4096+512:], unhex(t, "1100000000000000", "eeffffffffffffff", "0000000000000000"))
	copy(want[8192:], slot("0000000000000000",
		"56401264", "c0bbe286", "a8cd0ae6", "8dd82fa8",
		"735003c7", "4fad574a", "c1267e01"))
	copy(want[8192+4096:], slot("0100000000000000",
		"ebb75153", "3866a818", "aa220492", "698150cd",
		"9951c35c", "28e2c88e", "529170d5"))

	got := m.names["globals"].data
	if len(got) != len(want) {
		t.Fatalf("%d bytes, want %d", len(got), len(want))
	}
	for at := 0; at < len(want); at += 16 {
		if !bytes.Equal(got[at:at+16], want[at:at+16]) {
			t.Errorf("offset %d: % x, want % x", at, got[at:at+16], want[at:at+16])
		}
	}
}

func TestGoldenBytesOfCells(t *testing.T) {
	m := newMemFS()
	f := must[*File](t)(Create(m, "globals", Header{Mode: Continuous},
		&State{Seq: 7, MemoryPages: 17,
			Globals: []Value{{Type: 0x7f, Lo: 1}, {Type: 0x7e, Lo: 2}}}))
	f.BeginEvent(8)
	f.StoreGlobals(18, []Value{{Type: 0x7f, Lo: 0xfffffff0}, {Type: 0x7e, Lo: 0x1122334455667788}})
	f.EndEvent(8)
	want := unhex(t,
		"1000000000000000 efffffffffffffff", // event 8 is over
		"0100000000000000 0000000000000000", // the newest slot is write 1, no sync has failed
		"0100000000000000 feffffffffffffff", // the cells go with write 1
		"1200000000000000 edffffffffffffff", // memory pages
		"f0ffffff00000000 0f000000ffffffff",
		"8877665544332211 778899aabbccddee",
		strings.Repeat("00", 16))
	got := m.names["globals"].data[eventOffset:][:len(want)]
	if !bytes.Equal(got, want) {
		t.Fatalf("% x\nwant % x", got, want)
	}
}
