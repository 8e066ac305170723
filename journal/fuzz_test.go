package journal

import (
	"encoding/binary"
	"errors"
	"reflect"
	"testing"
)

// FuzzReplay puts any bytes in place of both files. Nothing may panic, and of each segment only
// records may be given that prove themselves.
//
// Which records were written is known for the seeds' own: they carry salts that no other bytes
// have but by damage of the seeds. So of a file whose header still has a seed's salt, what is
// replayed must be that seed's records, from the first one on.
func FuzzReplay(f *testing.F) {
	written := map[uint64][]logged{}
	for n := range 3 {
		m := newMemFS()
		j := mustCreate(f, m, MinSize, 0)
		salt := uint64(0x5eed000000000000 + n*16)
		j.newSalt = func() uint64 { salt++; return salt }
		for seq := uint64(1); seq <= 12; seq++ {
			c := text(seq, "small state")
			c.Memory = binary.LittleEndian.AppendUint64(nil, seq*0x0101010101)
			c.Ranges = []Range{{0, 3}, {4, 0}, {5, 3}}
			if n == 2 && seq == 4 {
				j.Sync()
			}
			if n > 0 && seq == 6 {
				j.Switch()
			}
			if err := j.Append(c); err != nil {
				f.Fatal(err)
			}
			written[salt] = append(written[salt], remember(c))
		}
		first, second := m.files["journal.0"].data, m.files["journal.1"].data
		f.Add(first, second, uint64(0))
		f.Add(first[:headerSize+100], second, uint64(3))
		f.Add(second, first, uint64(5))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, from uint64) {
		if len(first) > 1<<18 || len(second) > 1<<18 {
			return
		}
		m := newMemFS()
		m.put("journal.0", first)
		m.put("journal.1", second)
		j, err := Open(m, "", MinSize)
		if err != nil {
			return // a newer format
		}
		last := from
		rec, err := j.Replay(from, func(r Record) error {
			last++
			if r.Seq != last {
				t.Fatalf("record %d, want %d", r.Seq, last)
			}
			l := readBack(r)
			known := false
			for _, s := range j.segments {
				for _, w := range written[s.found.header.salt] {
					known = known || reflect.DeepEqual(w, l)
				}
			}
			if !known && (written[j.segments[0].found.header.salt] != nil || written[j.segments[1].found.header.salt] != nil) {
				// It must come from the segment that is nobody's seed.
				if written[j.segments[0].found.header.salt] != nil && written[j.segments[1].found.header.salt] != nil {
					t.Fatalf("a record that was not written: %v", l)
				}
			}
			return nil
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if rec.LastSeq != last {
			t.Fatalf("%+v, the last record was %d", rec, last)
		}
		for i, r := range j.Report() {
			if w := written[r.Salt]; r.Header == HeaderOpen && w != nil {
				// The header's checksum is unbroken, so base and salt are the seed's.
				if r.Records > len(w) || r.BaseSeq != w[0].seq-1 {
					t.Fatalf("segment %d: %+v, %d records were written", i, r, len(w))
				}
			}
		}
		if err := j.Reset(last); err != nil {
			t.Fatal(err)
		}
		if got, _, err := recovered(t, m, "", last); len(got) != 0 || err != nil {
			t.Fatalf("after a reset: %v, %v", got, err)
		}
		if err := j.Append(text(last+1, "next")); err != nil {
			t.Fatal(err)
		}
		if got, rec, err := recovered(t, m, "", last); texts(got) != "next" || rec.Torn || err != nil {
			t.Fatalf("after a reset and a commit: %v, %+v, %v", got, rec, err)
		}
	})
}
