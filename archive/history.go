package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/eventnote"
	"github.com/mmrun/mmrun/internal/history"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/snapshot"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// ErrMissing: a commit is not in the history, or what leads to it is damaged.
var ErrMissing = history.ErrMissing

// Commit is what is known of a commit.
type Commit struct {
	Seq uint64 `json:"seq"`
	// Time, Took and Function are there if the state notes them (mmrun.WithEventNotes,
	// WithHistory).
	Time     *time.Time    `json:"time,omitempty"` // when the event ended
	Took     time.Duration `json:"took,omitempty"` // nanoseconds
	Function string        `json:"function,omitempty"`
	Bytes    int           `json:"bytes"` // of memory that it changed
	Pages    int           `json:"pages"` // that these lie in
	Memory   uint64        `json:"memoryBytes"`
}

// Log calls fn for the commits of a state from one on that can still be read, in order: those in
// its history, and those that are in its log. The state may be in use: then what is committed
// meanwhile may be among them or not. fn ends it by an error, which is returned.
func Log(dir string, from uint64, fn func(Commit) error) error {
	_, err := walk(filepath.Clean(dir), from, func(r wal.Record) error { return fn(describe(r)) })
	return err
}

// walk calls fn for the records from one on that can be read, and tells which commit the state is
// at.
func walk(dir string, from uint64, fn func(r wal.Record) error) (at uint64, err error) {
	tell := func(r wal.Record) error {
		if r.Seq < from {
			return nil
		}
		return fn(r)
	}
	last, err := earliest(dir, from)
	if err == nil {
		last, err = history.Records(dir, last, func(r wal.Record) (more bool, err error) {
			err = tell(r)
			return err == nil, err
		})
	}
	if err != nil {
		return 0, err
	}
	var failed error
	v, err := engine.Read(vfs.OS, dir, func(r wal.Record) {
		if r.Seq > last && failed == nil {
			failed = tell(r)
		}
	})
	if err = cmp.Or(failed, err); err != nil {
		return 0, err
	}
	return v.State.Seq, v.Problem()
}

// earliest is a commit from which the history leads on to another one.
func earliest(dir string, to uint64) (uint64, error) {
	bases, err := history.Bases(dir)
	if errors.Is(err, os.ErrNotExist) || len(bases) == 0 {
		return 0, nil
	}
	first := bases[0]
	for _, b := range bases {
		if b < to {
			first = b
		}
	}
	return first, err
}

func describe(r wal.Record) Commit {
	c := Commit{Seq: r.Seq, Memory: uint64(r.WasmPages) << 16}
	last := int64(-1)
	for offset, data := range r.Ranges() {
		c.Bytes += len(data)
		if len(data) == 0 {
			continue
		}
		first, end := int64(offset)/pageSize, (int64(offset)+int64(len(data))-1)/pageSize
		c.Pages += int(end - max(first, last+1) + 1)
		last = max(last, end)
	}
	if n, ok := eventnote.Decode(delta.KeptIn(r.Small, section.TimeAndFunction)); ok {
		c.Time, c.Took, c.Function = &n.Time, n.Took, n.Function
	}
	return c
}

// At finds the last commit of a state that was made at a time or before, as its history says.
func At(dir string, t time.Time) (seq uint64, err error) {
	err = Log(dir, 0, func(c Commit) error {
		if c.Time != nil && !c.Time.After(t) {
			seq = c.Seq
		}
		return nil
	})
	if err == nil && seq == 0 {
		err = errs.State(filepath.Clean(dir), "", fmt.Errorf("no commit of %v or before: %w",
			t.Format(time.RFC3339), ErrMissing))
	}
	return seq, err
}

// ForkAt makes a state of its own in to of the commit seq of the one in dir, which keeps a history.
// The state in dir may be in use.
func ForkAt(ctx context.Context, dir string, seq uint64, to string) error {
	return Archiver{}.ForkAt(ctx, dir, seq, to)
}

// ForkAt is the function of that name.
func (a Archiver) ForkAt(ctx context.Context, dir string, seq uint64, to string) error {
	return a.at(ctx, dir, seq, to, func(im *engine.Image) { im.Derive(engine.Forked) })
}

// CheckOut is ForkAt for who wants to look at a commit as it was: the state made is that of the
// commit, and its guest is told nothing.
func (a Archiver) CheckOut(ctx context.Context, dir string, seq uint64, to string) error {
	return a.at(ctx, dir, seq, to, func(*engine.Image) {})
}

// at makes a state in to of a commit, which derive may change before.
func (a Archiver) at(ctx context.Context, dir string, seq uint64, to string,
	derive func(im *engine.Image)) (err error) {
	a = a.orDefault()
	dir = filepath.Clean(dir)
	bases, err := history.Bases(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errs.State(dir, "history", err)
	}
	base := uint64(0)
	for _, b := range bases {
		if b <= seq {
			base = b
		}
	}
	if base == 0 {
		return errs.State(dir, "", fmt.Errorf("commit %d: %w (a state keeps one with --history)",
			seq,
			ErrMissing))
	}
	f, err := os.Open(history.BasePath(dir, base))
	if err != nil {
		return errs.State(dir, "history", err)
	}
	defer f.Close()
	im, err := snapshot.Read(f)
	if err != nil {
		return errs.State(dir, "history", fmt.Errorf("%s: %w", f.Name(), err))
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	if im.State.Seq != base {
		return errs.State(dir, "history", fmt.Errorf("%s is of commit %d: %w", f.Name(),
			im.State.Seq,
			ErrMissing))
	}
	forward, err := engine.NewForward(im)
	if err != nil {
		return err
	}
	last, err := history.Records(dir, base, func(r wal.Record) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if r.Seq > seq {
			return false, nil
		}
		return r.Seq < seq, forward.Apply(r)
	})
	if err != nil {
		return errs.State(dir, "history", err)
	}
	if last < seq && isState(dir) {
		if err := rest(dir, last, seq, forward); err != nil {
			return err
		}
	}
	out := forward.Image()
	if out.State.Seq != seq {
		return errs.State(dir, "", fmt.Errorf("commit %d: %w: what leads to it ends at commit %d",
			seq,
			ErrMissing, out.State.Seq))
	}
	out.StopWith(ctx)
	derive(out)
	return engine.Build(a.FS, filepath.Clean(to), a.Boot, out, a.Progress)
}

// rest applies what is in the log alone.
func rest(dir string, last, seq uint64, forward *engine.Forward) error {
	var failed error
	_, err := engine.Read(vfs.OS, dir, func(r wal.Record) {
		if failed == nil && r.Seq == last+1 && r.Seq <= seq {
			if failed = forward.Apply(r); failed == nil {
				last = r.Seq
			}
		}
	})
	return errors.Join(err, failed)
}
