package delta

import (
	"bytes"
	"testing"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/section"
)

// What stays, what is appended and what is replaced is the same once and twice, whether a binding
// comes before the bytes are asked for or after.
func TestKeptByteStrings(t *testing.T) {
	id := section.StreamPosition
	at := int(id - section.FirstKept)
	for _, late := range []bool{false, true} {
		var s globalsfile.State
		s.Globals = []globalsfile.Value{{Type: 0x7f}}
		for i, step := range []struct {
			stay  int
			bytes string
			want  string
		}{{0, "abc", "abc"}, {3, "def", "abcdef"}, {2, "x", "abx"}, {0, "", ""},
			{0, "new", "new"}} {
			var e Encoder
			e.Reset()
			e.Global(0, uint64(i))
			e.Keep(Kept{ID: id, Stay: step.stay, Bytes: []byte(step.bytes)})
			e.Keep(Kept{ID: section.Receipts, Bytes: []byte{byte(i)}})
			if late {
				e.Bytes()
				e.Binding(7, 8)
			}
			b := bytes.Clone(e.Bytes())
			if c, r := Binding(b); late && (c != 7 || r != 8) {
				t.Fatalf("binding %d, %d", c, r)
			}
			for range 2 {
				if err := Apply(&s, b); err != nil {
					t.Fatalf("step %d: %v", i, err)
				}
				if got := string(s.Kept[at]); got != step.want {
					t.Fatalf("step %d: %q, want %q", i, got, step.want)
				}
				if got := s.Kept[section.Receipts-section.FirstKept]; !bytes.Equal(got,
					[]byte{byte(i)}) {
					t.Fatalf("step %d: the other one is %v", i, got)
				}
			}
			c := Clone(&s)
			if err := e.Apply(c); err != nil || string(c.Kept[at]) != step.want {
				t.Fatalf("step %d: by the encoder: %q, %v", i, c.Kept[at], err)
			}
		}
		// More than there is cannot stay.
		var e Encoder
		e.Reset()
		e.Keep(Kept{ID: id, Stay: 9})
		if err := Apply(&s, e.Bytes()); err == nil {
			t.Fatal("a delta keeps more than there is")
		}
	}
}
