package globalsfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/vfs"
)

// normal makes empty and nil the same, as they are in a slot.
func normal(s State) State {
	if len(s.Globals) == 0 {
		s.Globals = nil
	}
	if len(s.Tables) == 0 {
		s.Tables = nil
	}
	s.Tables = slices.Clone(s.Tables)
	for i := range s.Tables {
		if s.Tables[i] == nil {
			s.Tables[i] = []int32{}
		}
	}
	if len(s.Dropped) == 0 {
		s.Dropped = nil
	}
	if len(s.Meta) == 0 {
		s.Meta = nil
	}
	return s
}

func equal(a, b State) bool { return reflect.DeepEqual(normal(a), normal(b)) }

var genValue = rapid.Custom(func(t *rapid.T) Value {
	return Value{
		Type: rapid.Byte().Draw(t, "type"),
		Lo:   rapid.Uint64().Draw(t, "lo"),
		Hi:   rapid.Uint64().Draw(t, "hi"),
	}
})

var genMetaLength = rapid.OneOf(rapid.IntRange(0, 50), rapid.IntRange(0, 20_000))

// genState makes states of which some outgrow the smallest slot, and some twice.
var genState = rapid.Custom(func(t *rapid.T) State {
	return State{
		Seq:         rapid.Uint64Max(MaxSeq).Draw(t, "seq"),
		MemoryPages: rapid.Uint32().Draw(t, "pages"),
		Globals:     rapid.SliceOfN(genValue, 0, MaxCells+2).Draw(t, "globals"),
		Tables: rapid.SliceOfN(rapid.SliceOfN(rapid.Int32Min(-1), 0, 20), 0, 3).Draw(t,
			"tables"),
		Dropped: rapid.SliceOfN(rapid.Bool(), 0, 20).Draw(t, "dropped"),
		Meta:    make([]byte, genMetaLength.Draw(t, "meta")),
		Binding: rapid.SampledFrom([]uint64{0, 1, 1<<64 - 1}).Draw(t, "binding"),
	}
})

// Whatever is written is what is read: by the writer, after a kill and after a clean end.
func TestNewestStateIsRead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMemFS()
		want := genState.Draw(t, "first")
		f, err := Create(m, "globals", Header{Mode: Atomic}, &want)
		if err != nil {
			t.Fatal(err)
		}
		stored := false // want is what the cells say, not the newest slot alone
		check := func() {
			got, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			if !equal(*got, want) {
				t.Fatalf("read %+v, want %+v", got, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"write": func(t *rapid.T) {
				want = genState.Draw(t, "state")
				if err := f.WriteSlot(&want); err != nil {
					t.Fatal(err)
				}
				stored = false
			},
			"store globals": func(t *rapid.T) {
				if !f.Header().cellsCount() || len(want.Globals) > MaxCells {
					t.Skip("not in this mode, or no room")
				}
				want.Seq = rapid.Uint64Max(MaxSeq).Draw(t, "event")
				want.MemoryPages = rapid.Uint32().Draw(t, "pages")
				want.Globals = slices.Clone(want.Globals)
				for i := range want.Globals {
					want.Globals[i].Lo = rapid.Uint64().Draw(t, "lo")
				}
				f.BeginEvent(want.Seq)
				if !f.StoreGlobals(want.MemoryPages, want.Globals) {
					t.Fatal("no room")
				}
				f.EndEvent(want.Seq)
				stored = true
			},
			"header": func(t *rapid.T) {
				h := Header{Mode: Continuous, Clean: rapid.Bool().Draw(t, "clean"),
					BootID: [16]byte{rapid.Byte().Draw(t, "boot")}}
				if h.Clean { // says that the slot is all there is
					if err := f.WriteSlot(&want); err != nil {
						t.Fatal(err)
					}
					stored = false
				}
				if err := f.SetHeader(h); err != nil {
					t.Fatal(err)
				}
				if f.Header() != h {
					t.Fatal("another header")
				}
			},
			"reopen": func(t *rapid.T) {
				h := f.Header()
				seq := rapid.Uint64Max(MaxSeq).Draw(t, "event")
				f.BeginEvent(seq)
				inEvent := rapid.Bool().Draw(t, "in event")
				if !inEvent {
					f.EndEvent(seq)
				}
				if stored {
					want.Seq = seq
				}
				m = m.kill()
				if f, err = Open(m, "globals"); err != nil {
					t.Fatal(err)
				}
				if f.Header() != h {
					t.Fatal("another header")
				}
				if s, in := f.Event(); s != seq || in != inEvent {
					t.Fatalf("event %d, %t, want %d, %t", s, in, seq, inEvent)
				}
			},
		})
	})
}

// The same on a real file system, with every kind of content at once.
func TestFileOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "globals")
	h := Header{Module: [32]byte{1, 2, 3}, Mode: Continuous, BootID: [16]byte{9}}
	s := State{
		Seq: 3, MemoryPages: 65535, Binding: 77,
		Globals: []Value{{Type: 0x7e, Lo: 1 << 63}, {Type: 0x7b, Lo: 1, Hi: 2}},
		Tables:  [][]int32{{-1, 0, 70000}, {}},
		Dropped: []bool{true, false, true},
		Meta:    []byte("cursor 17"),
	}
	f := must[*File](t)(Create(vfs.OS, path, h, &s))
	check := func(want State) {
		t.Helper()
		if got := must[*State](t)(f.Read()); !equal(*got, want) {
			t.Fatalf("read %+v, want %+v", got, want)
		}
		inspected, r, err := Inspect(vfs.OS, path)
		if err != nil || !equal(*inspected, want) || r.Header != f.Header() {
			t.Fatalf("inspected %+v %+v %v", inspected, r, err)
		}
	}
	check(s)
	s.Seq, s.Globals[0].Lo = 4, 5
	f.BeginEvent(4)
	if !f.StoreGlobals(s.MemoryPages, s.Globals) {
		t.Fatal("no room")
	}
	f.EndEvent(4)
	check(s)
	s.Seq, s.Tables[1] = 5, make([]int32, 100_000)
	if err := f.WriteSlot(&s); err != nil {
		t.Fatal(err)
	}
	check(s)
	if err := errors.Join(f.Sync(), f.SetClean(true, h.BootID)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if entries := must[[]os.DirEntry](t)(os.ReadDir(filepath.Dir(path))); len(entries) != 1 {
		t.Fatalf("growth left files behind: %v", entries)
	}
	f = must[*File](t)(Open(vfs.OS, path))
	check(s)
	if seq, in := f.Event(); seq != 4 || in || !f.Header().Clean {
		t.Fatal(seq, in, f.Header())
	}

	if _, err := Create(vfs.OS, path, h, &s); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("created over a file: %v", err)
	}
	f.Close()
	// A late call must not be a store to an address that is no longer mapped.
	f.BeginEvent(6)
	f.StoreGlobals(1, s.Globals)
	f.EndEvent(6)
	for _, err := range []error{f.WriteSlot(&s), f.Sync(), f.SetHeader(h), f.Close()} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func TestInspectNeedsReadPermissionOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "globals")
	f := must[*File](t)(Create(vfs.OS, path, Header{Mode: Atomic}, &State{Seq: 1}))
	f.Close()
	if err := os.Chmod(path, 0o444); err != nil {
		t.Fatal(err)
	}
	before := must[os.FileInfo](t)(os.Stat(path))
	if s, _, err := Inspect(vfs.OS, path); err != nil || s.Seq != 1 {
		t.Fatal(s, err)
	}
	if after := must[os.FileInfo](t)(os.Stat(path)); after.ModTime() != before.ModTime() {
		t.Fatal("Inspect changed the file")
	}
	if _, _, err := Inspect(vfs.OS, path+".none"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}
