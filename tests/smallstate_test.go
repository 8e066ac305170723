package tests

import (
	"bytes"
	"errors"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/fsck"
	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/testkit/guests"
)

// 8 bytes of a megabyte of metadata change with each event: that is what the wal gets.
func TestSetMetaLogsTheDifference(t *testing.T) {
	in := open(t, newRuntime(t), filepath.Join(t.TempDir(), "s"), guests.Load(t, "counter"))
	meta := make([]byte, 1<<20)
	set := func() (walBytes uint64) {
		before := in.Stats().WALBytes
		if err := in.Update(ctx, func(tx *mmrun.Tx) error {
			tx.SetMeta(meta)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return in.Stats().WALBytes - before
	}
	set()
	for i := range byte(5) {
		copy(meta[500_000:], []byte{i, 1, 2, 3, 4, 5, 6, i + 1})
		if n := set(); n > 100 {
			t.Errorf("%d bytes of log", n)
		}
	}
	if string(in.Meta()) != string(meta) {
		t.Error("other metadata than was set")
	}
}

// What is acknowledged can be opened, up to the last byte that fits, and what cannot be kept is
// refused, in the event that would bring it.
func TestLargestMetadataIsKeptAndMoreIsRefused(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.String(), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "s")
			in := open(t, newRuntime(t), dir, guests.Load(t, "counter"), mmrun.WithMode(mode))
			if err := keepMeta(in, globalsfile.MaxSlot-400); err != nil {
				t.Fatal(err)
			}
			refused := sort.Search(400, func(n int) bool {
				err := keepMeta(in, globalsfile.MaxSlot-400+n)
				if err != nil && (!errors.Is(err, globalsfile.ErrTooLarge) ||
					!strings.Contains(err.Error(), "67108864")) {
					t.Error(err)
				}
				return err != nil
			})
			largest := globalsfile.MaxSlot - 400 + refused - 1
			if refused == 0 || refused == 400 {
				t.Fatal("no limit found")
			}
			if err := keepMeta(in, largest); err != nil {
				t.Fatal(err)
			}
			if err := keepMeta(in, 260<<20); !errors.Is(err, globalsfile.ErrTooLarge) {
				t.Error(err)
			}
			want := call(t, in, "inc")
			closeInstance(t, in)
			in = open(t, newRuntime(t), dir, nil)
			if got := len(in.Meta()); got != largest {
				t.Errorf("%d bytes, want %d", got, largest)
			}
			if got := call(t, in, "inc"); got != want+1 {
				t.Errorf("inc gave %d, want %d", got, want+1)
			}
			closeInstance(t, in)
			if r, err := fsck.Verify(dir); err != nil || !r.Sound {
				t.Error(r, err)
			}
		})
	}
}

// tableGrow is (module (table 1 funcref) (func (export "g") (param i32) (result i32)
// (table.grow 0 (ref.null func) (local.get 0)))).
var tableGrow = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x06\x01\x60\x01\x7f\x01\x7f" + "\x03\x02\x01\x00" +
	"\x04\x04\x01\x70\x00\x01" + "\x07\x05\x01\x01g\x00\x00" +
	"\x0a\x0b\x01\x09\x00\xd0\x70\x20\x00\xfc\x0f\x00\x0b")

func TestTableThatCannotBeKeptIsRolledBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	in := open(t, newRuntime(t), dir, tableGrow)
	call(t, in, "g", 9)
	seq := in.Seq()
	if _, err := in.Call(ctx, "g", 17_000_000); !errors.Is(err, globalsfile.ErrTooLarge) {
		t.Fatal(err)
	}
	if got := in.Seq(); got != seq {
		t.Errorf("commit %d, want %d", got, seq)
	}
	if got := call(t, in, "g", 100_000); got != 10 {
		t.Errorf("the table had %d elements, want 10", got)
	}
	closeInstance(t, in)
	in = open(t, newRuntime(t), dir, nil)
	if got := call(t, in, "g", 1); got != 100_010 {
		t.Errorf("the table had %d elements, want 100010", got)
	}
}

// keepMeta is an event that keeps n bytes with the state.
func keepMeta(in *mmrun.Instance, n int) error {
	return in.Update(ctx, func(tx *mmrun.Tx) error {
		tx.SetMeta(bytes.Repeat([]byte{7}, n))
		return nil
	})
}
