package crash

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/internal/pagefile"
	"github.com/mmrun/mmrun/internal/statedir"
)

// Totals count what kills have hit.
type Totals struct {
	Kills      int
	Starting   int // before a state was opened
	Creating   int // while the state was being created
	Created    int // of these, those after which there was a state
	Recovery   int // while opening, with records in the wal
	Opening    int // while opening, without
	Checkpoint int // nothing else going on
	Folding    int // with a checkpoint under way, and events going on
	Closing    int
	Quiet      int // between two events
	Kept       int // inside an event that turned out to be committed
	// inside an event, or just between two, and the last acknowledged one is the last
	Lost    int
	Torn    int // states refused with ErrTorn
	Events  int // acknowledged
	Failed  int // of these, those that were rolled back
	Commits int // recovered from the wal
}

func (t *Totals) Add(u Totals) {
	t.Kills += u.Kills
	t.Starting += u.Starting
	t.Creating += u.Creating
	t.Created += u.Created
	t.Recovery += u.Recovery
	t.Opening += u.Opening
	t.Checkpoint += u.Checkpoint
	t.Folding += u.Folding
	t.Closing += u.Closing
	t.Quiet += u.Quiet
	t.Kept += u.Kept
	t.Lost += u.Lost
	t.Torn += u.Torn
	t.Events += u.Events
	t.Failed += u.Failed
	t.Commits += u.Commits
}

func (t Totals) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d kills survived", t.Kills)
	for _, x := range []struct {
		n    int
		what string
	}{
		{t.Starting, "before opening"},
		{t.Creating, "while creating"},
		{t.Created, "of these left a state"},
		{t.Recovery, "in recovery"},
		{t.Opening, "while opening with nothing to recover"},
		{t.Checkpoint, "in a checkpoint"},
		{t.Folding, "in a checkpoint with events"},
		{t.Closing, "while closing"},
		{t.Quiet, "between events"},
		{t.Kept, "in an event that counts"},
		{t.Lost, "in an event that does not, or just between"},
		{t.Torn, "left a torn state, which was refused"},
	} {
		if x.n > 0 {
			fmt.Fprintf(&b, ", %d %s", x.n, x.what)
		}
	}
	fmt.Fprintf(&b,
		"; %d events acknowledged, %d of them rolled back; %d commits recovered from the wal",
		t.Events, t.Failed, t.Commits)
	return b.String()
}

// Lane is one state that children are killed over, and the twin that knows what it must be.
type Lane struct {
	Child  Child
	Totals Totals

	ctx     context.Context
	cache   wazero.CompilationCache
	rt      wazero.Runtime // of the twin
	twin    *Twin
	scratch string
	created bool   // the state is known to exist
	next    uint64 // number of the event after the last commit
	pending bool   // the wal holds records
}

// NewLane makes a lane without a state, which will be in dir; the copies that are looked at are
// made in scratch. Both belong to the lane alone. c gives what is not about places.
func NewLane(ctx context.Context, dir, scratch string, wasm []byte, c Child) (*Lane, error) {
	c.WasmFile = filepath.Join(scratch, c.Guest+".wasm")
	c.Dir = filepath.Join(dir, c.Guest+".state")
	l := &Lane{Child: c, ctx: ctx, scratch: scratch}
	if err := os.WriteFile(c.WasmFile, wasm, 0o666); err != nil {
		return nil, err
	}
	var err error
	if l.cache, err = wazero.NewCompilationCacheWithDir(c.CacheDir); err != nil {
		return nil, err
	}
	if l.rt, err = NewRuntime(ctx, l.cache); err != nil {
		return nil, err
	}
	w := &Workload{Guest: c.Guest, Wasm: wasm, Seed: c.Seed, OnlyCommits: c.OnlyCommits}
	if l.twin, err = NewTwin(ctx, l.rt, w); err != nil {
		return nil, err
	}
	return l, nil
}

// Close holds the twin against the module as it was before it was rewritten, and ends the lane.
func (l *Lane) Close() error {
	err := l.twin.CheckOriginal(l.ctx)
	return errors.Join(err, l.rt.Close(l.ctx), l.cache.Close(l.ctx))
}

// Restart removes the state and begins anew.
func (l *Lane) Restart() error {
	if err := os.RemoveAll(l.Child.Dir); err != nil {
		return err
	}
	l.created, l.pending, l.next = false, false, 0
	if err := l.twin.begin(l.ctx); err != nil {
		return err
	}
	l.twin.log = nil
	return nil
}

// Pending tells whether the next opening has something to recover.
func (l *Lane) Pending() bool { return l.pending }

// Created tells whether there is a state.
func (l *Lane) Created() bool { return l.created }

// Round lets a child go on with the state, kills it, and checks what is left. An error is a
// promise that was broken, or a child that failed.
func (l *Lane) Round(p Plan) (Outcome, error) {
	l.Child.Next = l.next
	out, err := l.Child.Kill(p)
	if err != nil {
		return out, err
	}
	l.Totals.Kills++
	err = l.follow(out)
	if err == nil {
		err = l.check(out)
	}
	if err != nil {
		err = errors.Join(err, l.keep())
	}
	return out, err
}

// keep puts the state that broke a promise, as the child has left it, where it outlives the test.
func (l *Lane) keep() error {
	if !l.created {
		return nil
	}
	dir, err := os.MkdirTemp("", "mmrun-crash-")
	if err != nil {
		return err
	}
	kept := filepath.Join(dir, filepath.Base(l.Child.Dir))
	if err := CopyState(kept, l.Child.Dir); err != nil {
		return err
	}
	again := "is sound"
	if report, err := fsck.Verify(kept); err != nil {
		again = fmt.Sprintf("cannot be verified: %v", err)
	} else if !report.Sound {
		again = fmt.Sprintf("is not sound: %+v", report.Checks)
	}
	return fmt.Errorf("the state as it was found is kept in %s; this copy of it %s", kept, again)
}

// follow lets the twin do what the child has acknowledged.
func (l *Lane) follow(out Outcome) error {
	for _, r := range out.Reports {
		switch r.Phase {
		case Opened:
			l.created = true
			if r.Seq != l.twin.Seq {
				return fmt.Errorf("the child found commit %d, %d was the last", r.Seq, l.twin.Seq)
			}
		case Acked:
			l.Totals.Events++
			e := l.twin.Event(r.N)
			answers, commits, err := l.twin.Apply(l.ctx, e)
			if err != nil {
				return err
			}
			l.next = r.N + 1
			switch {
			case commits == r.Failed:
				return fmt.Errorf("event %d, %v: the child rolled it back: %t", r.N, e, r.Failed)
			case commits && answers != r.Answers:
				return fmt.Errorf("event %d, %v: answers differ", r.N, e)
			case r.Seq != l.twin.Seq:
				return fmt.Errorf("event %d, %v: acknowledged as commit %d, want %d", r.N, e, r.Seq,
					l.twin.Seq)
			case r.Failed:
				l.Totals.Failed++
			}
		}
	}
	return nil
}

// inFlight tells whether an event may have been under way when the child was killed.
func inFlight(last Phase) bool {
	switch last {
	case Opened, Acked, Folding, Folded, Inside, Looping:
		return true
	}
	return false
}

// check opens a copy of the state that the child has left, so that the next child finds it as it
// was left, and compares it with the twin.
func (l *Lane) check(out Outcome) error {
	wasPending, existed := l.pending, l.created
	last := out.Last()
	copied := filepath.Join(l.scratch, "copy")
	if err := CopyState(copied, l.Child.Dir); errors.Is(err, mmrun.ErrNotExist) && !l.created {
		l.count(out, existed, wasPending, false)
		return nil
	} else if err != nil {
		return err
	}
	defer os.RemoveAll(copied)
	l.created = true

	in, rt, err := l.open(copied)
	if errors.Is(err, mmrun.ErrTorn) {
		return errors.Join(l.torn(copied, last), rt.Close(l.ctx))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("after a kill while %v: %w", last, err), rt.Close(l.ctx))
	}
	kept := false
	if in.Seq() == l.twin.Seq+1 && inFlight(last) {
		if _, kept, err = l.twin.Apply(l.ctx, l.twin.Event(l.next)); err != nil {
			return err
		}
		l.next++
	}
	recovered := in.Stats().Recovered
	l.Totals.Commits += int(recovered)
	l.pending = recovered > 0
	err = Compare(l.ctx, in, l.twin)
	if err == nil && (last == Inside && l.Child.Mode == mmrun.Continuous ||
		(last == Inside || last == Looping) && kept) {
		err = errors.New("an event that had not ended counts as ended")
	}
	if err = errors.Join(err, in.Close(l.ctx), rt.Close(l.ctx)); err == nil {
		err = checkSums(copied)
	}
	if err != nil {
		return fmt.Errorf("after a kill while %v, next event %d: %w", last, l.next, err)
	}
	l.count(out, existed, wasPending, kept)
	return nil
}

func (l *Lane) open(dir string) (*mmrun.Instance, wazero.Runtime, error) {
	rt, err := NewRuntime(l.ctx, l.cache)
	if err != nil {
		return nil, rt, err
	}
	options, err := l.Child.openOptions()
	if err != nil {
		return nil, rt, err
	}
	in, err := mmrun.Open(l.ctx, rt, dir, nil, options...)
	return in, rt, err
}

// torn checks that a torn state is one that may be, that refusing it has left it as it was, and
// that it can be had nevertheless.
func (l *Lane) torn(dir string, last Phase) error {
	l.Totals.Torn++
	if l.Child.Mode != mmrun.Continuous || !inFlight(last) {
		return fmt.Errorf("torn after a kill while %v in %v mode", last, l.Child.Mode)
	}
	rt, err := NewRuntime(l.ctx, l.cache)
	if err != nil {
		return err
	}
	defer rt.Close(l.ctx)
	config := mmrun.WithModuleConfig(ModuleConfig())
	if _, err := mmrun.Open(l.ctx, rt, dir, nil, config); !errors.Is(err, mmrun.ErrTorn) {
		return fmt.Errorf("a torn state was refused once and then: %w", err)
	}
	in, err := mmrun.Open(l.ctx, rt, dir, nil, config, mmrun.WithAcceptTorn())
	if err != nil {
		return fmt.Errorf("a torn state, taken as it is: %w", err)
	}
	return errors.Join(in.Close(l.ctx), l.Restart())
}

func (l *Lane) count(out Outcome, existed, pending, kept bool) {
	t := &l.Totals
	folding := false
	for _, r := range out.Reports {
		switch r.Phase {
		case Folding:
			folding = true
		case Folded:
			folding = false
		case Closing: // leaves nothing to recover
			pending = false
		}
	}
	switch out.Last() {
	case 0:
		t.Starting++
	case Opening:
		switch {
		case !existed:
			t.Creating++
			if l.created {
				t.Created++
			}
		case pending:
			t.Recovery++
		default:
			t.Opening++
		}
	case Checkpoint:
		t.Checkpoint++
	case Closing:
		t.Closing++
	case Paused:
		t.Quiet++
	default:
		if folding {
			t.Folding++
		}
		if kept {
			t.Kept++
		} else {
			t.Lost++
		}
	}
}

// Compare holds a state against its twin: sequence number, metadata, the whole memory, and the
// rest. In continuous mode it takes an event to look.
func Compare(ctx context.Context, in *mmrun.Instance, twin *Twin) error {
	if in.Seq() != twin.Seq {
		return fmt.Errorf("the state is at commit %d, want %d", in.Seq(), twin.Seq)
	}
	if got := in.Meta(); string(got) != string(twin.Meta) {
		return fmt.Errorf("commit %d: metadata are %x, want %x", twin.Seq, got, twin.Meta)
	}
	want, err := twin.Image(ctx)
	if err != nil {
		return err
	}
	look := in.View
	if in.Mode() == mmrun.Continuous {
		look = in.Update
	}
	return look(ctx, func(tx *mmrun.Tx) error {
		got, err := Observe(ctx, tx.Module(), twin.Info)
		if err != nil {
			return err
		}
		if diff := got.Diff(want); diff != "" {
			return fmt.Errorf("commit %d: %s", twin.Seq, diff)
		}
		return nil
	})
}

// checkSums holds the memory file of a closed state against its checksums.
func checkSums(dir string) error {
	sums, err := os.Open(filepath.Join(dir, "memory.sums"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // continuous mode, or no memory
	}
	if err != nil {
		return err
	}
	defer sums.Close()
	memory, err := os.Open(filepath.Join(dir, "memory"))
	if err != nil {
		return err
	}
	defer memory.Close()
	fi, err := memory.Stat()
	if err != nil {
		return err
	}
	var bad []uint32
	err = pagefile.Verify(memory, sums, uint64(fi.Size()),
		func(page uint32) { bad = append(bad, page) })
	if err == nil && len(bad) > 0 {
		err = fmt.Errorf("pages %d do not have the checksums noted for them", bad)
	}
	return err
}

// CopyState copies a state directory that nobody runs events on at the moment. The copy is what a
// kill at this instant would leave. An older copy is replaced.
func CopyState(to, from string) error {
	if err := CopyFiles(to, from); err != nil {
		return err
	}
	return statedir.Adopt(to, statedir.Boot())
}

// CopyFiles copies a state directory as it is, so that the copy can be told from the original.
func CopyFiles(to, from string) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := statedir.MustExist(from); err != nil {
		return err
	}
	return os.CopyFS(to, os.DirFS(from))
}
