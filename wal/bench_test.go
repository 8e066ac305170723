package wal

import (
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mmrun/mmrun/vfs"
)

const benchSize = 16 << 20

// onePage is a commit of the usual kind: 8 bytes of one page and one global.
func onePage() *Commit {
	return &Commit{WasmPages: 16, Small: make([]byte, 22), Memory: make([]byte, 1<<20),
		Ranges: []Range{{4096 + 64, 8}}}
}

func benchWAL(b *testing.B) *Log {
	l, err := Create(vfs.OS, b.TempDir(), benchSize, 0)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	return l
}

// mustAppend appends, and goes on in the other segment when the active one is full.
func mustAppend(tb testing.TB, l *Log, c *Commit) {
	c.Seq++
	err := l.Append(c)
	if errors.Is(err, ErrFull) {
		if err = l.Switch(); err == nil {
			if err = l.Sealed().Release(); err == nil {
				err = l.Append(c)
			}
		}
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func BenchmarkAppend(b *testing.B) {
	l, c := benchWAL(b), onePage()
	b.ReportAllocs()
	b.ReportMetric(float64(RecordSize(c)), "B/record")
	for b.Loop() {
		mustAppend(b, l, c)
	}
}

// BenchmarkAppendSync compares an append that is synced with the least that a log can do: one
// pwrite of a page and fdatasync, on a file whose blocks are written. The two take turns, so that
// they meet the same disk; the figures are medians.
func BenchmarkAppendSync(b *testing.B) {
	l, c := benchWAL(b), onePage()
	f, err := vfs.OS.OpenFile(b.TempDir()+"/bare", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, benchSize), 0); err != nil {
		b.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	page := make([]byte, 4096)
	var bare, logged []time.Duration
	at := int64(0)
	for b.Loop() {
		start := time.Now()
		if _, err := f.WriteAt(page, at); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		mustAppend(b, l, c)
		if err := l.Sync(); err != nil {
			b.Fatal(err)
		}
		logged = append(logged, time.Since(middle))
		bare = append(bare, middle.Sub(start))
		at = (at + 4096) % benchSize
	}
	slices.Sort(bare)
	slices.Sort(logged)
	half := len(bare) / 2
	b.ReportMetric(float64(bare[half].Microseconds()), "µs/bare")
	b.ReportMetric(float64(logged[half].Microseconds()), "µs/append+sync")
	b.ReportMetric(bare[half].Seconds()/logged[half].Seconds(), "rate/bare")
}

// BenchmarkOpen opens a wal of which a segment is full, and one after a clean end.
func BenchmarkOpen(b *testing.B) {
	for _, full := range []bool{true, false} {
		name := map[bool]string{true: "full", false: "idle"}[full]
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			l, err := Create(vfs.OS, dir, benchSize, 0)
			if err != nil {
				b.Fatal(err)
			}
			c := onePage()
			for {
				c.Seq++
				if err := l.Append(c); err != nil {
					break
				}
			}
			if !full {
				if err := l.Reset(c.Seq); err != nil {
					b.Fatal(err)
				}
			}
			l.Close()
			records := 0
			for b.Loop() {
				l, err := Open(vfs.OS, dir, benchSize)
				if err != nil {
					b.Fatal(err)
				}
				rec, err := l.Replay(0, func(Record) error { return nil })
				if err != nil {
					b.Fatal(err)
				}
				records = rec.Records
				l.Close()
			}
			b.ReportMetric(float64(records), "records")
		})
	}
}
