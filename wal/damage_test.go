package wal

import (
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"reflect"
	"testing"
)

func crcOf(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// sample is a wal with a sealed and an active segment, and where their records end.
func sample(t testing.TB, synced bool) (m *memFS, want []logged, tails [2]int) {
	m = newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	r := rand.New(rand.NewPCG(1, 2))
	for seq := uint64(1); seq <= 10; seq++ {
		if seq == 6 {
			if err := l.Switch(); err != nil {
				t.Fatal(err)
			}
		}
		c := randomCommit(r, seq, 100)
		if err := l.Append(c); err != nil {
			t.Fatal(err)
		}
		want = append(want, remember(c))
	}
	if synced {
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	return m, want, [2]int{int(l.segments[0].tail), int(l.segments[1].tail)}
}

// checkDamaged holds a damaged sample against the claim: what is replayed is a prefix, and a
// prefix that is not all is reported: as damage if it had been synced, else at least as torn.
func checkDamaged(t *testing.T, m *memFS, want []logged, synced bool) (found bool) {
	t.Helper()
	got, rec, err := recovered(t, m, "", 0)
	if len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
		t.Fatalf("%d records, not a prefix", len(got))
	}
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if len(got) < len(want) && (err == nil && synced || err == nil && !rec.Torn) {
		t.Fatalf("%d of %d records, and nobody says so: %+v", len(got), len(want), rec)
	}
	return err != nil || rec.Torn
}

func TestEveryFlippedBitIsFoundOrHarmless(t *testing.T) {
	for _, synced := range []bool{true, false} {
		m, want, tails := sample(t, synced)
		flips, found := 0, 0
		for i, name := range []string{"wal.0", "wal.1"} {
			b := m.files[name].data
			for at := 0; at < tails[i]+64; at++ {
				if at == headerBytes+8 {
					at = headerSize - 8 // between the two nothing is used
				}
				for bit := range 8 {
					b[at] ^= 1 << bit
					flips++
					if checkDamaged(t, m, want, synced) {
						found++
					} else if at < headerBytes || at >= headerSize && at < tails[i] {
						t.Fatalf("synced %v: %s: bit %d of byte %d was not found", synced, name,
							bit, at)
					}
					b[at] ^= 1 << bit
				}
			}
		}
		t.Logf("synced %v: %d bits flipped, %d found", synced, flips, found)
	}
}

func TestEveryTruncationIsFoundOrHarmless(t *testing.T) {
	for _, synced := range []bool{true, false} {
		m, want, tails := sample(t, synced)
		for i, name := range []string{"wal.0", "wal.1"} {
			whole := m.files[name].data
			for n := 0; n < len(whole); n++ {
				if n > 16 && n < headerSize-16 || n > tails[i]+64 {
					n = min(n+100, len(whole)-1)
				}
				m.put(name, whole[:n])
				checkDamaged(t, m, want, true) // a kill or a power cut does not cut the file
			}
			m.put(name, whole)
		}
	}
}

func TestEveryLostSectorIsFoundOrHarmless(t *testing.T) {
	for _, synced := range []bool{true, false} {
		m, want, _ := sample(t, synced)
		for _, name := range []string{"wal.0", "wal.1"} {
			b := m.files[name].data
			for at := 0; at < len(b); at += sectorSize {
				whole := string(b[at : at+sectorSize])
				clear(b[at : at+sectorSize])
				got, _, err := recovered(t, m, "", 0)
				if len(got) > 0 && !reflect.DeepEqual(got, want[:len(got)]) {
					t.Fatalf("%d records, not a prefix", len(got))
				}
				// The sector of the last record also holds the end mark: without the two, the
				// end looks as if nothing had ever been there.
				if at == 0 && !errors.Is(err, ErrCorrupt) {
					t.Errorf("a lost header: %v", err)
				}
				copy(b[at:], whole)
			}
		}
	}
}

// TestDamageBeforeTheSyncedPartIsToldFromATornTail: the note is in a later record, the end mark
// is gone.
func TestDamageBeforeTheSyncedPartIsToldFromATornTail(t *testing.T) {
	for _, synced := range []bool{true, false} {
		m := newMemFS()
		l := mustCreate(t, m, MinSize, 0)
		appendAll(t, l, "1", "2", "3")
		if synced {
			if err := l.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		appendAll(t, l, "4", "5")
		b := m.files["wal.0"].data
		clear(b[l.segments[0].tail:])
		b[headerSize+recordHeaderSize] ^= 1 // in the first record
		got, rec, err := recovered(t, m, "", 0)
		if len(got) != 0 || errors.Is(err, ErrCorrupt) != synced || !synced && !rec.Torn {
			t.Errorf("synced %v: %s, %+v, %v", synced, texts(got), rec, err)
		}
		want := uint64(0)
		if synced {
			want = 3
		}
		if r := mustOpen(t, m).Report()[0]; r.SeenSeq != 5 || r.DurableSeq != want ||
			r.Records != 0 || r.EndOffset != headerSize || r.Reason == "" {
			t.Errorf("%+v", r)
		}
	}
}

func TestReplayOfADamagedSealedSegmentFails(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	appendAll(t, l, "1", "2")
	l.Switch()
	m.files["wal.0"].data[l.segments[0].tail-1] ^= 1
	n := 0
	if err := l.Sealed().Replay(func(Record) error { n++; return nil }); !errors.Is(err,
		ErrCorrupt) || n != 1 {
		t.Error(n, err)
	}
}

func TestErrorOfTheCallerEndsTheReplay(t *testing.T) {
	m, _, _ := sample(t, true)
	stop := errors.New("stop")
	for _, seq := range []uint64{1, 5, 6, 10} {
		rec, err := mustOpen(t, m).Replay(0, func(r Record) error {
			if r.Seq == seq {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) || rec.LastSeq != seq-1 {
			t.Error(rec, err)
		}
	}
}

func TestDamageOfTheLastSyncedRecordIsFound(t *testing.T) {
	m := newMemFS()
	l := mustCreate(t, m, MinSize, 0)
	appendAll(t, l, "1", "2")
	last := l.active.tail
	appendAll(t, l, "3")
	if err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	m.files["wal.0"].data[last+recordHeaderSize] ^= 1
	if got, _, err := recovered(t, m, "", 0); texts(got) != "1 2" || !errors.Is(err, ErrCorrupt) {
		t.Errorf("%s, %v", texts(got), err)
	} else {
		t.Log(err)
	}
}
