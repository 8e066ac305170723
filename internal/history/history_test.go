package history

import (
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/mmrun/mmrun/wal"
)

// record is one of a commit that says in its small state which course it belongs to.
func record(t *testing.T, seq uint64, course string) wal.Record {
	t.Helper()
	b, err := wal.Encode(nil, &wal.Commit{Seq: seq, Small: []byte(course)})
	if err != nil {
		t.Fatal(err)
	}
	r, _, err := wal.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// fakeBase is a file in the place of a base.
func fakeBase(t *testing.T, dir string, seq uint64, size int, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(BasePath(dir, seq), make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	then := time.Now().Add(-age)
	if err := os.Chtimes(BasePath(dir, seq), then, then); err != nil {
		t.Fatal(err)
	}
}

func opened(t *testing.T, dir string, k Keep) *Writer {
	t.Helper()
	w, err := Open(dir, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return w
}

// courses are those of the records behind a commit, in order.
func courses(t *testing.T, dir string, after uint64) (seen []string) {
	t.Helper()
	last, err := Records(dir, after, func(r wal.Record) (bool, error) {
		seen = append(seen, string(r.Small))
		return true, nil
	})
	if err != nil || last != after+uint64(len(seen)) {
		t.Fatalf("%d records up to %d: %v", len(seen), last, err)
	}
	return seen
}

// A state that has gone back begins another course: nothing of the one before is taken for it.
func TestCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		dir := t.TempDir()
		w := opened(t, dir, Keep{All: true})
		fakeBase(t, dir, 1, 1, 0)
		most := 2 + r.Uint64N(30)
		for seq := uint64(2); seq <= most; seq++ {
			w.Add(record(t, seq, "first"))
			if r.IntN(3) == 0 || seq == most {
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
			if r.IntN(5) == 0 {
				fakeBase(t, dir, seq, 1, 0)
			}
			if r.IntN(8) == 0 { // another process goes on, in another file
				if err := errors.Join(w.Flush(), w.Close()); err != nil {
					t.Fatal(err)
				}
				w = opened(t, dir, Keep{All: true})
			}
		}
		back := 1 + r.Uint64N(most)
		if err := w.Cut(back); err != nil {
			t.Fatal(err)
		}
		if needed, err := w.NeedsBase(dir, back); err != nil || !needed {
			t.Fatalf("no base is needed: %v", err)
		}
		fakeBase(t, dir, back, 1, 0)
		if err := w.Based(back); err != nil {
			t.Fatal(err)
		}
		for seq := back + 1; seq <= most+5; seq++ {
			w.Add(record(t, seq, "second"))
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		bases, err := Bases(dir)
		if err != nil || bases[len(bases)-1] != back {
			t.Fatalf("bases %d, back at %d: %v", bases, back, err)
		}
		got := courses(t, dir, back)
		if len(got) != int(most+5-back) || slices.Contains(got, "first") {
			t.Fatalf("from %d of %d: %q", back, most, got)
		}
	}
}

// What is promised to be kept is kept, and leads from a base; what is beyond goes.
func TestPrune(t *testing.T) {
	for _, c := range []struct {
		name  string
		keep  string
		ages  []time.Duration // of the bases 1, 11, 21, ...
		sizes int
		first uint64 // base that is the first one then
	}{
		{"all", "all", []time.Duration{900 * time.Hour, 800 * time.Hour, 0}, 10, 1},
		{"the newest of the old ones leads to the window", "7d",
			[]time.Duration{900 * time.Hour, 800 * time.Hour, 200 * time.Hour, time.Hour}, 10, 21},
		{"none is old enough", "7d", []time.Duration{100 * time.Hour, time.Hour}, 10, 1},
		{"the last one stays", "1h", []time.Duration{900 * time.Hour}, 10, 1},
		{"as many as fit", "100KiB", []time.Duration{5, 4, 3, 2}, 45 << 10, 21},
		{"one that does not fit stays", "10KiB", []time.Duration{5, 4, 3}, 45 << 10, 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			keep, err := ParseKeep(c.keep)
			if err != nil {
				t.Fatal(err)
			}
			w := opened(t, dir, keep)
			for i, age := range c.ages {
				base := uint64(1 + 10*i)
				fakeBase(t, dir, base, c.sizes, age)
				for seq := base + 1; seq <= base+10; seq++ {
					w.Add(record(t, seq, "x"))
				}
				if err := errors.Join(w.Flush(), w.Close()); err != nil {
					t.Fatal(err)
				}
				w = opened(t, dir, keep)
			}
			if err := w.Prune(dir); err != nil {
				t.Fatal(err)
			}
			bases, err := Bases(dir)
			if err != nil || bases[0] != c.first {
				t.Fatalf("bases %d, want %d to be the first: %v", bases, c.first, err)
			}
			last := uint64(10 * len(c.ages))
			if got := courses(t, dir, c.first); len(got) != int(last+1-c.first) {
				t.Errorf("%d records behind base %d", len(got), c.first)
			}
			logs, err := list(Dir(dir), logEnd)
			if err != nil || logs[0] < c.first {
				t.Errorf("logs %d behind base %d: %v", logs, c.first, err)
			}
			if k, ok, err := Remembered(dir); err != nil || !ok || k != keep {
				t.Errorf("remembered: %v %t %v", k, ok, err)
			}
		})
	}
}

func TestParseKeep(t *testing.T) {
	for s, want := range map[string]Keep{
		"all": {All: true}, "7d": {Age: 168 * time.Hour}, "36h": {Age: 36 * time.Hour},
		"10GiB": {Bytes: 10 << 30}, "5MiB": {Bytes: 5 << 20}, "4096": {Bytes: 4096},
	} {
		got, err := ParseKeep(s)
		if err != nil || got != want {
			t.Errorf("%s: %+v %v", s, got, err)
		}
		if again, err := ParseKeep(got.String()); err != nil || again != want {
			t.Errorf("%s: %s is %+v %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "0", "-1", "d", "0d", "-7d", "7days", "GiB", "1.5GiB",
		"99999999999999GiB", "0h", "-5h", "ALL"} {
		if k, err := ParseKeep(s); err == nil {
			t.Errorf("%q: %+v", s, k)
		}
	}
}
