package globalsfile

import (
	"errors"
	"testing"
)

// In continuous mode no sync need come between two slot writes, so a power cut can take both slots.
// While the header says clean it cannot: then it is damage.
func TestTwoLostSlotsAreTornUnlessTheHeaderSaysClean(t *testing.T) {
	for _, c := range []struct {
		header Header
		want   error
	}{
		{Header{Mode: Continuous}, ErrTorn},
		{Header{Mode: Continuous, Clean: true}, ErrCorrupt},
		{Header{Mode: Atomic}, ErrCorrupt},
	} {
		m := newMemFS()
		f := must[*File](t)(Create(m, "globals", c.header, &State{Seq: 1, Meta: []byte("a")}))
		for i := range 2 {
			f.slot(i)[8]++ // the sequence number
		}
		f.Close()
		_, err := Open(m, "globals")
		if !errors.Is(err, c.want) {
			t.Errorf("%v, clean %v: %v, want %v", c.header.Mode, c.header.Clean, err, c.want)
		}
	}
}
