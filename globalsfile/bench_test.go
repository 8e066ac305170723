package globalsfile

import (
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

func benchFile(b testing.TB, s *State) *File {
	f := must[*File](b)(Create(vfs.OS, filepath.Join(b.TempDir(), "globals"),
		Header{Mode: Continuous}, s))
	b.Cleanup(func() { f.Close() })
	return f
}

func TestEventDoesNotAllocate(t *testing.T) {
	s := stateA()
	f := benchFile(t, s)
	if n := testing.AllocsPerRun(1000, func() {
		s.Seq++
		f.BeginEvent(s.Seq)
		if err := f.WriteSlot(s); err != nil || !f.StoreGlobals(1, s.Globals) {
			t.Fatal(err)
		}
		f.EndEvent(s.Seq)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkEventWord(b *testing.B) {
	f := benchFile(b, stateA())
	seq := uint64(0)
	for b.Loop() {
		seq++
		f.BeginEvent(seq)
		f.EndEvent(seq)
	}
}

// BenchmarkEvent is what a continuous event costs in the sidecar: the event word and the globals.
func BenchmarkEvent(b *testing.B) {
	small := State{Globals: make([]Value, 3)}
	large := State{Globals: make([]Value, 3), Tables: [][]int32{make([]int32, 10_000)},
		Dropped: make([]bool, 1000)}
	for _, bc := range []struct {
		name  string
		s     State
		whole bool
	}{
		{"3 globals/StoreGlobals", small, false},
		{"3 globals/WriteSlot", small, true},
		{"3 globals, 10000 table elements/StoreGlobals", large, false},
		{"3 globals, 10000 table elements/WriteSlot", large, true},
	} {
		b.Run(bc.name, func(b *testing.B) {
			s := bc.s
			f := benchFile(b, &s)
			b.ReportAllocs()
			for b.Loop() {
				s.Seq++
				f.BeginEvent(s.Seq)
				s.Globals[1].Lo = s.Seq
				if !bc.whole {
					f.StoreGlobals(s.MemoryPages, s.Globals)
				} else if err := f.WriteSlot(&s); err != nil {
					b.Fatal(err)
				}
				f.EndEvent(s.Seq)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	path := filepath.Join(b.TempDir(), "globals")
	must[*File](b)(Create(vfs.OS, path, Header{Mode: Atomic}, stateA())).Close()
	for b.Loop() {
		must[*File](b)(Open(vfs.OS, path)).Close()
	}
}

func BenchmarkSetClean(b *testing.B) {
	f := benchFile(b, stateA())
	for b.Loop() {
		if err := f.SetClean(!f.Header().Clean, boot1); err != nil {
			b.Fatal(err)
		}
	}
}
