package delta

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/mmrun/mmrun/globalsfile"
)

// BenchmarkOneGlobal is what the small state costs an event that changes one global. "plain" is the
// least that it could be: kind, index and value, with no sections around them.
func BenchmarkOneGlobal(b *testing.B) {
	b.Run("plain encode", func(b *testing.B) {
		buf, v := make([]byte, 0, 64), uint64(0)
		for b.Loop() {
			v++
			buf = binary.AppendUvarint(append(buf[:0], 1), 5)
			buf = binary.LittleEndian.AppendUint64(buf, v)
		}
	})
	var e Encoder
	b.Run("encode", func(b *testing.B) {
		v := uint64(0)
		b.ReportAllocs()
		for b.Loop() {
			v++
			e.Reset()
			e.Global(5, v)
			e.Bytes()
		}
	})
	s := &globalsfile.State{Globals: make([]globalsfile.Value, 6)}
	for name, apply := range map[string]func() error{
		"apply":     func() error { return Apply(s, e.Bytes()) },
		"apply own": func() error { return e.Apply(s) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := apply(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMeta is 1 MiB of metadata of which 8 bytes change.
func BenchmarkMeta(b *testing.B) {
	old := make([]byte, 1<<20)
	now := slices.Clone(old)
	var e Encoder
	for b.Loop() {
		now[500_000]++
		e.Reset()
		e.Meta(old, now)
	}
	b.ReportMetric(float64(len(e.Bytes())), "bytes")
}
