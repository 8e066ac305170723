package journal

import (
	"encoding/hex"
	"strings"
	"testing"
)

// The bytes below were computed by a second implementation, from the drawings alone.
const (
	goldenIdle = `6d6d72756e4a4e4c 01000000 00000000
		0000000000000000 1100000000000000 0000000000000000
		0000000000000000 0000000000000000 0000000000000000 00000000 ...
		35269b1c`
	goldenOpen = `6d6d72756e4a4e4c 01000000 01000000
		0807060504030201 1100000000000000 0020000000000000
		0000000000000000 0000000000000000 0000000000000000 00000000 ...
		cf2fe892`
	goldenRecord = `7bac346d 07000000 1200000000000000 03000000 04000000 02000000 00000000
		676c6f62
		02000000 03000000 323334
		09000000 01000000 39
		4614d421 00000000 00000000 656e642e`
	goldenNext = `6d6d72756e4a4e4c 01000000 01000000
		1817161514131211 1200000000000000 0020000000000000
		0807060504030201 3810000000000000 3810000000000000 7bac346d ...
		f43ef0ad`
)

// TestFormat: a change of the format must raise the version.
func TestFormat(t *testing.T) {
	m := newMemFS()
	j := mustCreate(t, m, MinSize, 0x11)
	salts := []uint64{0x0102030405060708, 0x1112131415161718}
	j.newSalt = func() uint64 { s := salts[0]; salts = salts[1:]; return s }
	golden := func(what string, got []byte, want string) {
		t.Helper()
		want = strings.Join(strings.Fields(want), "")
		want = strings.Replace(want, "...", strings.Repeat("0", 2*len(got)-len(want)+3), 1)
		if hex.EncodeToString(got) != want {
			t.Errorf("%s:\n%x, want\n%s", what, got, want)
		}
	}
	first, second := m.files["journal.0"].data, m.files["journal.1"].data
	c := &Commit{Seq: 0x12, WasmPages: 3, Small: []byte("glob"), Memory: []byte("0123456789"), Ranges: []Range{{2, 3}, {9, 1}}}

	golden("idle header", first[:512], goldenIdle)
	if err := j.Append(c); err != nil {
		t.Fatal(err)
	}
	golden("open header", first[:512], goldenOpen)
	golden("record and end mark", first[4096:4096+56+16], goldenRecord)
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := j.Switch(); err != nil {
		t.Fatal(err)
	}
	c.Seq++
	if err := j.Append(c); err != nil {
		t.Fatal(err)
	}
	golden("header of the next segment", second[:512], goldenNext)
}
