package errs

import (
	"errors"
	"io/fs"
	"testing"
)

func TestKindIsFoundAndNotSaid(t *testing.T) {
	err := Statef(ErrLocked, "a.state", "in use by process %d: %w", 7, fs.ErrExist)
	want := "state a.state: in use by process 7: file already exists"
	if got := err.Error(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	var state *StateError
	if !errors.Is(err, ErrLocked) || !errors.Is(err, fs.ErrExist) || !errors.As(err, &state) {
		t.Errorf("kind, cause or state is missing from %#v", err)
	}
	if state.Dir != "a.state" {
		t.Errorf("the state is %q", state.Dir)
	}
}

func TestStateIsNamedOnce(t *testing.T) {
	once := State("a", "lock", fs.ErrPermission)
	for _, c := range []struct {
		err  error
		want string
	}{
		{once, "state a: lock: permission denied"},
		{State("a", "", once), "state a: lock: permission denied"},
		{State("a", "", As(ErrCorrupt, once)), "state a: lock: permission denied"},
		{State("b", "", once), "state b: state a: lock: permission denied"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
	if err := State("a", "", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
