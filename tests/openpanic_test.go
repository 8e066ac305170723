package tests

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
)

// panics is a handler of log records that panics.
type panics struct{ slog.Handler }

func (panics) Enabled(context.Context, slog.Level) bool { return true }

func (panics) Handle(context.Context, slog.Record) error { panic("no log today") }

// A panic out of foreign code while a state is opened must not leave it locked.
func TestPanicInOpenReleasesTheState(t *testing.T) {
	m := newMachine(t)
	dir := filepath.Join(scratch.Dir(t), "s")
	in, err := m.open(dir, vfs.OS, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := runEvent(in, event("one", do("one", 8, 1)), nil); err != nil {
		t.Fatal(err)
	}
	abandon(in) // so that there is something to recover, which is logged
	func() {
		defer func() {
			if recover() != "no log today" {
				t.Error("the panic did not come through")
			}
		}()
		_, _ = m.open(dir, vfs.OS, false, mmrun.WithLogger(slog.New(panics{slog.DiscardHandler})))
	}()
	if in, err = m.open(dir, vfs.OS, false); err != nil {
		t.Fatal(err)
	}
	abandon(in)
}
