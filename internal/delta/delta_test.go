package delta

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/section"
)

func blank(globals, tables, segments int) *globalsfile.State {
	return &globalsfile.State{Globals: make([]globalsfile.Value, globals),
		Tables: make([][]int32, tables), Dropped: make([]bool, segments)}
}

// difference is the delta from one state to another of the same shape.
func difference(e *Encoder, from, to *globalsfile.State) []byte {
	e.Reset()
	for i, v := range to.Globals {
		switch old := from.Globals[i]; {
		case v.Hi != old.Hi:
			e.Wide(i, v.Lo, v.Hi)
		case v.Lo != old.Lo:
			e.Global(i, v.Lo)
		}
	}
	for i, d := range to.Dropped {
		if d && !from.Dropped[i] {
			e.Dropped(i)
		}
	}
	for i := range to.Tables {
		e.Table(i, from.Tables[i], to.Tables[i])
	}
	e.Meta(from.Meta, to.Meta)
	return e.Bytes()
}

// The bytes are part of the promise: a log outlives the program that wrote it.
func TestGoldenBytes(t *testing.T) {
	var e Encoder
	from, to := blank(300, 2, 2), blank(300, 2, 2)
	to.Globals[5].Lo = 0x1122334455667788
	to.Globals[200] = globalsfile.Value{Lo: 1, Hi: 2}
	to.Dropped[1] = true
	from.Tables[1], to.Tables[1] = []int32{1, 2, 3, 4, 5, 6}, []int32{1, 7, 3, 4, 8, 6, -1}
	from.Meta, to.Meta = []byte("0123456789abcdef"), []byte("0x23456789abcDeF")
	difference(&e, from, to)
	e.Binding(0x0807060504030201, 9)
	want := "03 1b" + // globals
		"0a 8877665544332211" + // 5
		"9103 0100000000000000 0200000000000000" + "CRC0" + // 200, wide
		"05 01 01" + "CRC1" + // dropped: 1
		"07 16 01 07" + // table 1 has 7 elements:
		"01 01 07000000" + // after one, one
		"02 03 08000000 06000000 ffffffff" + "CRC2" + // after two more, three
		"09 09 10" + // metadata, 16 bytes:
		"01 01 78" + // after one, one
		"0b 03 446546" + "CRC3" + // after eleven more, three
		"0d 10 0102030405060708 0900000000000000" + "CRC4" // binding
	// From another implementation.
	for i, crc := range []string{"563ac136", "0ac1bd17", "97666346", "b4fe6927", "7ee92693"} {
		want = strings.Replace(want, "CRC"+string(rune('0'+i)), crc, 1)
	}
	want = strings.ReplaceAll(want, " ", "")
	if got := hex.EncodeToString(e.Bytes()); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

var genState = rapid.Custom(func(t *rapid.T) *globalsfile.State {
	// Few different values, so that states have something in common.
	small := rapid.Uint64Max(2)
	s := blank(3, 2, 9)
	for i := range s.Globals {
		s.Globals[i].Lo, s.Globals[i].Hi = small.Draw(t, "lo"), small.Draw(t, "hi")
	}
	length := rapid.OneOf(rapid.IntRange(0, 30), rapid.IntRange(500, 1100))
	for i := range s.Tables {
		table := make([]int32, length.Draw(t, "elements"))
		for _, at := range rapid.SliceOfN(rapid.IntRange(0, 1100), 0, 5).Draw(t, "at") {
			if at < len(table) {
				table[at] = 1
			}
		}
		s.Tables[i] = table
	}
	s.Meta = make([]byte, length.Draw(t, "bytes"))
	for _, at := range rapid.SliceOfN(rapid.IntRange(0, 1100), 0, 9).Draw(t, "at") {
		if at < len(s.Meta) {
			s.Meta[at] = 'x'
		}
	}
	return s
})

func same(a, b *globalsfile.State) bool {
	return slices.Equal(a.Globals, b.Globals) && slices.Equal(a.Dropped, b.Dropped) &&
		string(a.Meta) == string(b.Meta) && reflect.DeepEqual(a.Tables, b.Tables)
}

// One encoder, as in an instance; dropped flags are only ever set.
func TestDeltaLeadsFromOneStateToTheNextOnceOrTwice(t *testing.T) {
	var e Encoder
	rapid.Check(t, func(t *rapid.T) {
		s := genState.Draw(t, "first")
		own := Clone(s)
		for range rapid.IntRange(1, 4).Draw(t, "commits") {
			next := genState.Draw(t, "next")
			for i := range next.Dropped {
				next.Dropped[i] = s.Dropped[i] || rapid.Bool().Draw(t, "dropped")
			}
			b := difference(&e, s, next)
			if same(s, next) != (len(b) == 0) {
				t.Fatalf("%d bytes", len(b))
			}
			for times := range 2 {
				if err := Apply(s, b); err != nil || !same(s, next) {
					t.Fatalf("applied %d times: %v %+v, want %+v", times+1, err, s, next)
				}
			}
			if err := e.Apply(own); err != nil || !same(own, next) {
				t.Fatal(err, own)
			}
		}
	})
}

func TestLittleChangesOfMuchAreLittleLog(t *testing.T) {
	old := make([]byte, 1<<20)
	for i := range old {
		old[i] = byte(i * 7)
	}
	table := make([]int32, 1_000_000)
	for name, c := range map[string]struct {
		most int
		note func(e *Encoder)
	}{
		"8 bytes of a megabyte": {40, func(e *Encoder) {
			now := slices.Clone(old)
			binary.LittleEndian.PutUint64(now[777_777:], 1<<63+12345)
			e.Meta(old, now)
		}},
		"8 bytes at each end": {60, func(e *Encoder) {
			now := slices.Clone(old)
			binary.LittleEndian.PutUint64(now, 1<<63)
			binary.LittleEndian.PutUint64(now[len(now)-8:], 1<<63)
			e.Meta(old, now)
		}},
		"the same megabyte": {0, func(e *Encoder) { e.Meta(old, slices.Clone(old)) }},
		"a byte behind it":  {30, func(e *Encoder) { e.Meta(old[:999], old[:1000]) }},
		"one byte less":     {20, func(e *Encoder) { e.Meta(old, old[:len(old)-1]) }},
		"all of it gone":    {20, func(e *Encoder) { e.Meta(old, nil) }},
		"another one of 1000 bytes": {1030, func(e *Encoder) {
			e.Meta(old[:1000],
				old[1001:2001])
		}},
		"one of a million elements": {30, func(e *Encoder) {
			changed(e, table, len(table),
				500_000)
		}},
		"one element more": {30, func(e *Encoder) {
			changed(e, table, 1_000_001,
				1_000_000)
		}},
		"every tenth byte of a 1000": {1030, func(e *Encoder) { tenth(e, old[:1000]) }},
	} {
		var e Encoder
		c.note(&e)
		if n := len(e.Bytes()); n > c.most {
			t.Errorf("%s: %d bytes", name, n)
		}
	}
}

func changed(e *Encoder, old []int32, length, at int) {
	now := make([]int32, length)
	copy(now, old)
	now[at] = 5
	e.Table(3, old, now)
}

func tenth(e *Encoder, old []byte) {
	now := slices.Clone(old)
	for i := 0; i < len(now); i += 10 {
		now[i]++
	}
	e.Meta(old, now)
}

func TestHotEventDoesNotAllocate(t *testing.T) {
	s := blank(3, 1, 0)
	s.Meta, s.Tables[0] = make([]byte, 5000), make([]int32, 1000)
	meta, table := slices.Clone(s.Meta), slices.Clone(s.Tables[0])
	var e Encoder
	v := uint64(0)
	if n := testing.AllocsPerRun(100, func() {
		v++
		meta[17]++
		table[99]++
		e.Reset()
		e.Global(1, v)
		e.Table(0, s.Tables[0], table)
		e.Meta(s.Meta, meta)
		if err := errors.Join(e.CheckFits(s), e.Apply(s)); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// forged is a delta with checksums that fit.
func forged(sections ...section.Section) []byte {
	var b []byte
	sum := uint32(seed)
	for _, s := range sections {
		start := len(b)
		b = append(section.AppendHeader(b, s.ID, s.Must, len(s.Content)), s.Content...)
		b, sum = section.AppendChecksum(b, start, sum)
	}
	return b
}

func of(id section.ID, content string) section.Section {
	return section.Section{ID: id, Must: true, Content: []byte(content)}
}

// none is a table without elements.
func none(table byte) section.Section { return of(section.Tables, string([]byte{table, 0})) }

// What a delta could say that it must not: refused as damage, and the state is as before.
func TestMalformedDeltaIsRefusedAndChangesNothing(t *testing.T) {
	const eight, most = "12345678", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
	good := of(section.Globals, "\x00"+eight)
	for name, b := range map[string][]byte{
		"not a list":                []byte("abc"),
		"global behind the last":    forged(of(section.Globals, "\x00"+eight+"\x06"+eight)),
		"global with a giant index": forged(of(section.Globals, most+eight)),
		"half a value":              forged(of(section.Globals, "\x00"+eight+"\x021234")),
		"half a wide value":         forged(of(section.Globals, "\x01"+eight)),
		"index without an end":      forged(of(section.Globals, "\x80")),
		"segment behind the last":   forged(good, of(section.Dropped, "\x09")),
		"table behind the last":     forged(good, of(section.Tables, "\x02\x00")),
		"one table twice":           forged(none(0), none(0)),
		"tables in the wrong order": forged(none(1), none(0)),
		"table without a length":    forged(good, of(section.Tables, "\x00")),
		"table longer than said":    forged(good, of(section.Tables, "\x00\x09")),
		"giant table":               forged(good, of(section.Tables, "\x00"+most)),
		"end that is in no run":     forged(good, of(section.Tables, "\x00\x03\x00\x01abcd")),
		// 4 bytes each, of 2 to the 62: the product is 0.
		"run of a quarter of everything": forged(good, of(section.Tables,
			"\x00\x80\x80\x80\x80\x80\x80\x80\x80\x40\x00\x80\x80\x80\x80\x80\x80\x80\x80\x40")),
		"run behind the end": forged(good, of(section.Tables,
			"\x00\x02\x01\x02abcdefgh")),
		"gap behind the old end":       forged(good, of(section.Meta, "\x06\x05\x01x")),
		"run of nothing":               forged(good, of(section.Meta, "\x04\x00\x00")),
		"giant run":                    forged(good, of(section.Meta, "\x04\x00"+most)),
		"giant gap":                    forged(good, of(section.Meta, "\x04"+most+"\x01x")),
		"run without its bytes":        forged(good, of(section.Meta, "\x04\x00\x02x")),
		"gap without a run":            forged(good, of(section.Meta, "\x04\x01")),
		"metadata twice":               forged(of(section.Meta, "\x00"), of(section.Meta, "\x00")),
		"globals twice":                forged(good, good),
		"binding too short":            forged(good, of(section.Binding, "123456789012345")),
		"binding too long":             forged(good, of(section.Binding, "12345678901234567")),
		"wrong checksum":               append(forged(good)[:13], 0, 0, 0, 0),
		"second section with seed 0":   append(forged(good), forged(of(section.Meta, "\x00"))...),
		"no length of metadata at all": forged(good, of(section.Meta, "")),
	} {
		s := blank(3, 2, 9)
		s.Tables[0], s.Meta = []int32{1, 2}, []byte("meta")
		before := Clone(s)
		err := Apply(s, b)
		if !errors.Is(err, ErrMalformed) || errors.Is(err, section.ErrUnknown) {
			t.Errorf("%s: %v", name, err)
		}
		if !same(s, before) {
			t.Errorf("%s: the state has changed", name)
		}
	}
}

func TestDeltaOfANewerProgram(t *testing.T) {
	s := blank(1, 0, 0)
	global := of(section.Globals, "\x00\x07\x00\x00\x00\x00\x00\x00\x00")
	err := Apply(s, forged(global, of(section.ID(40), "stack")))
	if !errors.Is(err, section.ErrUnknown) || errors.Is(err, ErrMalformed) ||
		!strings.Contains(err.Error(), "section 40") || s.Globals[0].Lo != 0 {
		t.Error("must be understood:", err, s.Globals)
	}
	costs := section.Section{ID: section.ID(41), Content: []byte("hint")}
	if err := Apply(s, forged(global, costs)); err != nil || s.Globals[0].Lo != 7 {
		t.Error("need not be understood:", err, s.Globals)
	}
}

func TestBindingIsFound(t *testing.T) {
	var e Encoder
	e.Global(0, 1)
	if n, m := Binding(e.Bytes()); n != 0 || m != 0 {
		t.Error("found where there is none")
	}
	e.Reset()
	e.Global(0, 1)
	e.Binding(99, 3)
	if n, m := Binding(e.Bytes()); n != 99 || m != 3 {
		t.Error(n, m)
	}
	if err := Apply(blank(1, 0, 0), e.Bytes()); err != nil {
		t.Error(err)
	}
}

// What fits by CheckFits is what a slot holds, to the byte; the binding may come with a checkpoint.
func TestCheckFitsIsAboutTheStateAfterTheDelta(t *testing.T) {
	s := blank(2, 2, 0)
	s.Tables[0], s.Meta = make([]int32, 100), make([]byte, 100)
	bound := Clone(s)
	bound.Binding = 1
	room := globalsfile.MaxSlot - globalsfile.SlotSize(bound)
	var e Encoder
	for _, c := range []struct {
		what        string
		table, meta int64 // lengths
		fits        bool
	}{
		{"as it is", 100, 100, true},
		// The lengths of both sections take 3 bytes more than now.
		{"largest metadata", 100, 100 + room - 3, true},
		{"one byte more", 100, 100 + room - 2, false},
		{"the table gets as much shorter", 50, 100 + room - 3 + 200, true},
		{"largest table", 100 + (room-2)/4, 100, true},
		{"one element more", 100 + (room-2)/4 + 1, 100, false},
	} {
		e.Reset()
		e.Table(0, s.Tables[0], make([]int32, c.table))
		e.Meta(s.Meta, make([]byte, c.meta))
		err := e.CheckFits(s)
		if (err == nil) != c.fits || err != nil && !errors.Is(err, globalsfile.ErrTooLarge) {
			t.Errorf("%s: %v", c.what, err)
		}
		after := Clone(bound)
		if err := e.Apply(after); err != nil {
			t.Fatal(err)
		}
		if err := globalsfile.CheckFits(after); (err == nil) != c.fits {
			t.Errorf("%s: a slot: %v", c.what, err)
		}
	}
	e.Reset()
	e.Global(0, 1)
	s.Seq = globalsfile.MaxSeq
	if err := e.CheckFits(s); !errors.Is(err, globalsfile.ErrTooLarge) {
		t.Error("last commit:", err)
	}
}

// Any bytes: the state changes as a whole or not at all, and grows by no more than the bytes hold.
func FuzzApply(f *testing.F) {
	var e Encoder
	from, to := blank(3, 2, 9), blank(3, 2, 9)
	to.Globals[1].Lo, to.Globals[2].Hi, to.Dropped[8] = 1, 2, true
	to.Tables[1], to.Meta = []int32{1, -1}, []byte("metadata")
	f.Add(difference(&e, from, to), false)
	f.Add(forged(of(section.Tables, "\x00\xff\xff\xff\x7f")), true)
	f.Add(forged(of(section.Meta, "\xff\xff\xff\x7f\x00\x01x")), true)
	f.Add(forged(of(section.ID(40), "x")), true)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix {
			b = fixChecksums(b)
		}
		s := blank(3, 2, 9)
		s.Tables[0], s.Meta = []int32{1, 2, 3}, []byte("meta")
		before := Clone(s)
		var start, end runtime.MemStats
		runtime.ReadMemStats(&start)
		err := Apply(s, b)
		runtime.ReadMemStats(&end)
		if n := end.TotalAlloc - start.TotalAlloc; n > uint64(64<<10+10*len(b)) {
			t.Fatalf("%d bytes allocated for %d", n, len(b))
		}
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, section.ErrUnknown) {
				t.Fatal(err)
			}
			if !same(s, before) {
				t.Fatal("changed in part")
			}
			return
		}
		once := Clone(s)
		if err := Apply(s, b); err != nil || !same(s, once) {
			t.Fatal("twice is not once", err)
		}
	})
}

// fixChecksums lets the fuzzer through to the code behind the checksums.
func fixChecksums(b []byte) []byte {
	var all []section.Section
	for len(b) > 2 && int(b[1]) < 0x80 && len(b) >= 2+int(b[1])+4 {
		s := section.Section{ID: section.ID(b[0] >> 1), Must: b[0]&1 != 0,
			Content: b[2 : 2+int(b[1])]}
		all, b = append(all, s), b[2+int(b[1])+4:]
	}
	return append(forged(all...), b...)
}
