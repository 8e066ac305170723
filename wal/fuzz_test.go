package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"reflect"
	"testing"
)

// squeeze leaves out of a file what is never read, so that a fuzzer does not waste its time there.
func squeeze(data []byte, tail int64) []byte {
	return append(append([]byte{}, data[:headerBytes]...), data[headerSize:tail+64]...)
}

func unsqueeze(b []byte) []byte {
	if len(b) < headerBytes {
		return b
	}
	return append(append(append([]byte{}, b[:headerBytes]...),
		make([]byte, headerSize-headerBytes)...), b[headerBytes:]...)
}

// forge gives a file checksums that fit, as far as the record lengths lead.
func forge(b []byte) {
	if len(b) < headerSize {
		return
	}
	copy(b, magic[:])
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], stateOpen)
	chain := crcOf(b[:508])
	le.PutUint32(b[508:], chain)
	seq := le.Uint64(b[24:])
	for at := int64(headerSize); ; {
		length, why := lengthOf(b[at:], int64(len(b))-at)
		if why != faultNone {
			return
		}
		seq++
		le.PutUint64(b[at+8:], seq)
		chain = crc32.Update(chain^mix(le.Uint64(b[16:])), castagnoli, b[at+4:at+length])
		le.PutUint32(b[at:], chain)
		at += length
	}
}

// FuzzReplay puts any bytes in place of both files, as they are or with checksums that fit.
//
//   - Nothing panics; what is replayed goes on from the state without a gap; the error is nil or
//     ErrCorrupt; after Reset the wal is empty and takes commits.
//   - No record is given that was not written: in bytes without forged checksums, a segment that
//     has the salt of one of the seeds gives the first records of that seed and no other ones.
func FuzzReplay(f *testing.F) {
	written := map[uint64][]logged{}
	for n := range uint64(3) {
		m := newMemFS()
		l := mustCreate(f, m, MinSize, 0)
		salt := 0x5eed000000000000 + n*16
		l.newSalt = func() uint64 { salt++; return salt }
		for seq := uint64(1); seq <= 6; seq++ {
			c := text(seq, "small")
			c.Memory = binary.LittleEndian.AppendUint64(nil, seq*0x0101010101)
			c.Ranges = []Range{{0, 3}, {4, 0}, {5, 3}}
			if n == 2 && seq == 3 {
				l.Sync()
			}
			if n > 0 && seq == 4 {
				l.Switch()
			}
			if err := l.Append(c); err != nil {
				f.Fatal(err)
			}
			written[salt] = append(written[salt], remember(c))
		}
		first := squeeze(m.files["wal.0"].data, l.segments[0].tail)
		second := squeeze(m.files["wal.1"].data, max(l.segments[1].tail, headerSize))
		for _, forged := range []bool{false, true} {
			f.Add(first, second, uint64(0), forged)
			f.Add(first[:len(first)-100], second, uint64(2), forged)
			f.Add(second, first, uint64(3), forged)
		}
	}
	f.Fuzz(func(t *testing.T, first, second []byte, from uint64, forged bool) {
		if len(first) > 1<<14 || len(second) > 1<<14 {
			return
		}
		m := newMemFS()
		for name, b := range map[string][]byte{"wal.0": first, "wal.1": second} {
			b = unsqueeze(b)
			if forged {
				forge(b)
			}
			m.put(name, b)
		}
		l, err := Open(m, "", MinSize)
		if err != nil {
			return // a newer format
		}
		salt := uint64(0)
		l.newSalt = func() uint64 { salt++; return salt }
		for _, s := range l.segments {
			if want := written[s.found.header.salt]; want != nil && !forged {
				n := 0
				s.found.each(func(r Record) error {
					if n == len(want) || !reflect.DeepEqual(readBack(r), want[n]) {
						t.Fatalf("record %d was not written: %v", n, readBack(r))
					}
					n++
					return nil
				})
			}
		}
		last := from
		rec, err := l.Replay(from, func(r Record) error {
			if last++; r.Seq != last {
				t.Fatalf("record %d, want %d", r.Seq, last)
			}
			readBack(r)
			return nil
		})
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
		if rec.LastSeq != last {
			t.Fatalf("%+v, the last record was %d", rec, last)
		}
		l.Report()
		if err := l.Reset(last); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(text(last+1, "next")); err != nil {
			t.Fatal(err)
		}
		if got, rec, err := recovered(t, m, "", last); texts(got) != "next" || rec.Torn ||
			err != nil {
			t.Fatalf("after a reset and a commit: %v, %+v, %v", got, rec, err)
		}
	})
}
