package journal

import (
	"errors"
	"testing"

	"github.com/mmrun/mmrun/internal/disk"
)

// logged is a commit as a test remembers it.
type logged struct {
	seq    uint64
	pages  uint32
	small  string
	ranges []loggedRange
}

type loggedRange struct {
	offset uint32
	data   string
}

func remember(c *Commit) logged {
	l := logged{seq: c.Seq, pages: c.WasmPages, small: string(c.Small)}
	for _, r := range c.Ranges {
		l.ranges = append(l.ranges, loggedRange{r.Offset, string(c.Memory[r.Offset : r.Offset+r.Len])})
	}
	return l
}

func read(r Record) logged {
	l := logged{seq: r.Seq, pages: r.WasmPages, small: string(r.Small)}
	for offset, data := range r.Ranges() {
		l.ranges = append(l.ranges, loggedRange{offset, string(data)})
	}
	return l
}

func replay(t testing.TB, dir string, size int64, from uint64) ([]logged, Recovery, error) {
	t.Helper()
	j, err := Open(disk.OS, dir, size)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	var got []logged
	rec, err := j.Replay(from, func(r Record) error {
		got = append(got, read(r))
		return nil
	})
	return got, rec, err
}

func small(seq uint64, text string) *Commit {
	return &Commit{Seq: seq, WasmPages: 1, Small: []byte(text)}
}

func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	j, err := Create(disk.OS, dir, 1<<16, 7)
	if err != nil {
		t.Fatal(err)
	}
	mem := []byte("0123456789abcdef")
	for i := range 5 {
		c := &Commit{Seq: 8 + uint64(i), WasmPages: 3, Small: []byte("xyz"), Memory: mem, Ranges: []Range{{1, 3}, {5, 0}, {8, 8}}}
		if err := j.Append(c); err != nil {
			t.Fatal(err)
		}
		if i == 2 {
			if err := j.Switch(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := j.Sealed().Replay(func(r Record) error { t.Log(read(r)); return nil }); err != nil {
		t.Fatal(err)
	}
	got, rec, err := replay(t, dir, 1<<16, 7)
	if len(got) != 5 || rec.Torn || err != nil {
		t.Fatal(got, rec, err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(small(13, "")); err == nil || errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
}
