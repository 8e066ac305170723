package lab

import (
	"errors"

	"github.com/mmrun/mmrun"
)

// State is the guest under mmrun.
type State struct {
	*mmrun.Instance
	engine   *engine
	dir      string
	cacheDir string
	opts     []mmrun.Option
}

// NewState opens or creates the state in dir. A nil module resumes the one that is kept there.
func NewState(wasm []byte, dir string, opts ...mmrun.Option) (*State, error) {
	s := &State{dir: dir, opts: opts}
	return s, s.open(wasm)
}

// ResumeState opens the state in dir with compiled code from cacheDir, see NewPlain.
func ResumeState(dir, cacheDir string) (*State, error) {
	s := &State{dir: dir, cacheDir: cacheDir}
	return s, s.open(nil)
}

func (s *State) open(wasm []byte) error {
	var err error
	if s.engine, err = newEngine(s.cacheDir); err != nil {
		return err
	}
	if s.Instance, err = mmrun.Open(ctx, s.engine, s.dir, wasm, s.opts...); err != nil {
		return errors.Join(err, s.engine.close())
	}
	return nil
}

// Event is an Update of one CallWithStack on a function that was looked up once.
func (s *State) Event(export string) func([]uint64) error {
	var f *mmrun.Function
	var stack []uint64
	body := func(tx *mmrun.Tx) error {
		if f == nil {
			f = tx.Function(export)
		}
		return f.CallWithStack(ctx, stack)
	}
	in := s.Instance
	return func(st []uint64) error {
		stack = st
		return in.Update(ctx, body)
	}
}

// ViewEvent is Event as a View: it is rolled back.
func (s *State) ViewEvent(export string) func([]uint64) error {
	var f *mmrun.Function
	var stack []uint64
	body := func(tx *mmrun.Tx) error {
		if f == nil {
			f = tx.Function(export)
		}
		return f.CallWithStack(ctx, stack)
	}
	in := s.Instance
	return func(st []uint64) error {
		stack = st
		return in.View(ctx, body)
	}
}

// CallEvent is Event with Instance.Call.
func (s *State) CallEvent(export string) func([]uint64) error {
	in := s.Instance
	return func(stack []uint64) error {
		_, err := in.Call(ctx, export, stack...)
		return err
	}
}

func (s *State) Setup(export string, params ...uint64) error {
	_, err := s.Call(ctx, export, params...)
	return err
}

// Settle closes the state and opens it again: no page is private then.
func (s *State) Settle() error {
	if err := s.Close(); err != nil {
		return err
	}
	return s.open(nil)
}

// Close closes the state cleanly.
func (s *State) Close() error {
	return errors.Join(s.Instance.Close(ctx), s.engine.close())
}
