package tests

import (
	"bytes"
	"io"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/archive"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// gatedWriter lets the first bytes through, says so, and waits.
type gatedWriter struct {
	bytes.Buffer
	reached, open chan struct{}
	passed        bool
}

func newGatedWriter() *gatedWriter {
	return &gatedWriter{reached: make(chan struct{}), open: make(chan struct{})}
}

func (w *gatedWriter) Write(b []byte) (int, error) {
	if !w.passed {
		w.passed = true
		close(w.reached)
		<-w.open
	}
	return w.Buffer.Write(b)
}

// Several snapshots at once, that begin and end in any order, are each of their own commit.
func TestSnapshotsAtOnce(t *testing.T) {
	const mib, pages = 8, 8 * 256
	rt, root := newRuntime(t), t.TempDir()
	in := open(t, rt, filepath.Join(root, "s"), guests.Load(t, "stores"),
		mmrun.WithWALSize(64<<20))
	call(t, in, "grow", mib*16-1)
	type taken struct {
		w    *gatedWriter
		seq  uint64
		fill uint64
		done chan error
	}
	fill := func(v uint64) {
		t.Helper()
		call(t, in, "touch", 0, 1, pages, v)
		if err := in.Checkpoint(ctx); err != nil {
			t.Fatal(err)
		}
	}
	begin := func(v uint64) *taken {
		t.Helper()
		s := &taken{w: newGatedWriter(), fill: v, done: make(chan error, 1)}
		go func() {
			var err error
			s.seq, err = in.Snapshot(ctx, s.w)
			s.done <- err
		}()
		<-s.w.reached // by then it has its commit
		return s
	}
	end := func(s *taken) {
		t.Helper()
		close(s.w.open)
		if err := <-s.done; err != nil {
			t.Fatal(err)
		}
	}
	fill(1)
	a, b := begin(1), begin(1)
	fill(2)
	c := begin(2)
	end(b)
	fill(3)
	if _, err := in.Snapshot(ctx, io.Discard); err != nil {
		t.Fatal(err)
	}
	fill(4)
	end(a)
	fill(5)
	end(c)
	for i, s := range []*taken{a, b, c} {
		dir := filepath.Join(root, string(rune('a'+i)))
		if _, err := archive.Restore(ctx, &s.w.Buffer, dir); err != nil {
			t.Fatal(err)
		}
		f := open(t, rt, dir, nil)
		if f.Seq() != s.seq {
			t.Errorf("snapshot %d: commit %d, want %d", i, f.Seq(), s.seq)
		}
		for p := range uint64(pages) {
			if got := call64(t, f, "load", p*4096); got != s.fill {
				t.Fatalf("snapshot %d, page %d: %d, want %d", i, p, got, s.fill)
			}
		}
		closeInstance(t, f)
	}
}
