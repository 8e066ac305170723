package engine

import (
	"context"
	"errors"
	"testing"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/statedir"
)

// panickyKeeper panics in a commit, before or after the record may be in the log.
type panickyKeeper struct {
	keeper
	core    *core
	reached phase
	aborts  int
}

func (k *panickyKeeper) begin() error { return nil }

func (k *panickyKeeper) commit(Extras) error {
	k.core.phase = k.reached
	panic("in a commit")
}

func (k *panickyKeeper) abort() error {
	k.aborts++
	return nil
}

// A commit that panics when its record may be in the log already can be neither undone nor
// acknowledged: whether it is there is for the next opening to find out.
func TestPanicBehindTheAppendPoisons(t *testing.T) {
	lock, err := statedir.Acquire(t.TempDir(), [16]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	s := &Store{core: core{opts: DefaultOptions(), lock: lock}, gate: newGate()}
	k := &panickyKeeper{core: &s.core, reached: keeping}
	s.keep = k
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic did not come through")
			}
		}()
		if err := s.Enter(context.Background()); err != nil {
			t.Fatal(err)
		}
		defer s.Leave()
		s.phase = running
		_ = s.Commit(Extras{})
	}()
	if err := s.Usable(); !errors.Is(err, errs.ErrPoisoned) || k.aborts != 0 {
		t.Errorf("%v after %d rollbacks, want a poisoned instance and none", err, k.aborts)
	}
	if !s.gate.tryEnter() {
		t.Error("the gate is held")
	}
}
