package wal

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
)

// The bytes below were computed by a second implementation, from the drawings alone.
const (
	goldenIdle = `6d6d72756e57414c 02000000 00000000
		0000000000000000 1100000000000000 0000000000000000
		0000000000000000 0000000000000000 0000000000000000 00000000 00000000
		0020000000000000 ...
		3d5478c3`
	goldenOpen = `6d6d72756e57414c 02000000 01000000
		0807060504030201 1100000000000000 0020000000000000
		0000000000000000 0000000000000000 1100000000000000 00000000 00000000
		0020000000000000 ...
		86798d26`
	goldenRecords = `f37ad85a 07000000 1200000000000000 03000000 04000000 02000000 00000000
		676c6f62
		02000000 03000000 323334
		09000000 01000000 39
		4edf8aba 07000000 1300000000000000 03000000 04000000 02000000 01000000
		676c6f62
		02000000 03000000 323334
		09000000 01000000 39
		3d2366cd 00000000 1300000000000000 02000000 656e642e`
	goldenNext = `6d6d72756e57414c 02000000 01000000
		1817161514131211 1300000000000000 0020000000000000
		0807060504030201 7010000000000000 1300000000000000 4edf8aba 00000000
		0020000000000000 ...
		88cfefe2`
)

// TestFormat: a change of the format must raise the version.
func TestFormat(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0x11)
	salts := []uint64{0x0102030405060708, 0x1112131415161718}
	l.newSalt = func() uint64 { s := salts[0]; salts = salts[1:]; return s }
	golden := func(what string, got []byte, want string) {
		t.Helper()
		want = strings.Join(strings.Fields(want), "")
		want = strings.Replace(want, "...", strings.Repeat("0", 2*len(got)-len(want)+3), 1)
		if hex.EncodeToString(got) != want {
			t.Errorf("%s:\n%x, want\n%s", what, got, want)
		}
	}
	first, second := m.files["wal.0"].data, m.files["wal.1"].data
	c := &Commit{Seq: 0x12, WasmPages: 3, Small: []byte("glob"), Memory: []byte("0123456789"),
		Ranges: []Range{{2, 3}, {9, 1}}}

	golden("idle header", first[:512], goldenIdle)
	for range 2 {
		if err := l.Append(c); err != nil {
			t.Fatal(err)
		}
		c.Seq++
	}
	golden("open header", first[:512], goldenOpen)
	golden("records and end mark", first[4096:4096+2*56+endMarkSize], goldenRecords)
	if err := errors.Join(l.Sync(), l.Switch(), l.Append(c)); err != nil {
		t.Fatal(err)
	}
	golden("header of the next segment", second[:512], goldenNext)
}
