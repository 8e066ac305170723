package peers

import (
	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/bench/lab"
)

// Form is a way to run any guest of testdata and to keep its whole state.
type Form struct {
	Name   string
	Safety Safety
	Open   func(guest, dir string) (lab.Contestant, error)
}

// Forms are those of the contestants that keep guests.
func Forms() []Form {
	state := func(name string, safety Safety, opts ...mmrun.Option) Form {
		return Form{name, safety, func(guest, dir string) (lab.Contestant, error) {
			wasm, err := lab.Module(guest)
			if err != nil {
				return nil, err
			}
			return lab.NewState(wasm, dir, opts...)
		}}
	}
	copies := func(name string, safety Safety, newSaver func() saver) Form {
		return Form{name, safety, func(guest, dir string) (lab.Contestant, error) {
			g, err := OpenGuest(guest, "")
			if err != nil {
				return nil, err
			}
			return &copiedGuest{g, dir, newSaver()}, nil
		}}
	}
	return []Form{
		{"plain wazero", Nothing, func(guest, _ string) (lab.Contestant, error) {
			wasm, err := lab.Module(guest)
			if err != nil {
				return nil, err
			}
			return lab.NewPlain(wasm, "")
		}},
		state("mmrun atomic never", Kill),
		state("mmrun barrier never", Kill, mmrun.WithTracker(mmrun.Barrier)),
		state("mmrun continuous", Between, mmrun.WithMode(mmrun.Continuous)),
		copies("copy, rename", Kill, func() saver { return copyFiles{rename: true} }),
		copies("copy, zstd", Kill, func() saver { return copyFiles{rename: true, zstd: true} }),
		copies("copy, changed pages", Kill, func() saver { return new(changedPages) }),
		state("mmrun atomic always", Power, mmrun.WithSync(mmrun.SyncAlways)),
		copies("copy, fsync", Power, func() saver { return copyFiles{rename: true, sync: true} }),
	}
}

// copiedGuest saves after each event.
type copiedGuest struct {
	*Guest
	dir   string
	saver saver
}

func (c *copiedGuest) Event(export string) func([]uint64) error {
	f := c.module.ExportedFunction(export)
	return func(stack []uint64) error {
		if err := f.CallWithStack(ctx, stack); err != nil {
			return err
		}
		return c.saver.save(c.dir, c.Guest)
	}
}

func (c *copiedGuest) Setup(export string, params ...uint64) error {
	_, err := c.Call(export, params...)
	return err
}

func (c *copiedGuest) Settle() error { return c.saver.save(c.dir, c.Guest) }
