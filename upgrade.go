package mmrun

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/history"
	"github.com/mmrun/mmrun/internal/section"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/internal/upgrade"
	"github.com/mmrun/mmrun/vfs"
)

// The exports by which two builds of a guest hand over what they hold, see [Upgrade]: functions
// without parameters and results. The old build prints it to its standard output, the new one reads
// that from its standard input.
const (
	SaveName = "mmrun_save"
	LoadName = "mmrun_load"
)

// UpgradeOptions say how a state gets to its new module. One of three ways is taken: Migrate, if it
// is given; KeepMemory, if that is set; or else what the guests say themselves (SaveName,
// LoadName).
type UpgradeOptions struct {
	// KeepMemory: memory, globals and metadata carry over as they are, globals by name and then by
	// index. That the new build lays its data out as the old one did is the caller's word. Tables,
	// and globals that are new, are as instantiation makes them; no start function runs.
	KeepMemory bool
	// Data has the new module's active data segments written over the memory that was kept.
	Data bool
	// Allow names mismatches to be left out, as UpgradeReport names them; others refuse the
	// upgrade.
	Allow []string

	// Migrate carries the state over in Go. The old Tx is a query; the new one is the first event
	// of the new module after its first run.
	Migrate func(old, new *Tx) error

	// DryRun does all of it and throws it away.
	DryRun bool
	// Options are how both instances are opened.
	Options []Option
}

// UpgradeReport is what an upgrade did, or would have done.
type UpgradeReport struct {
	Dir        string            `json:"state"`
	Seq        uint64            `json:"seq"` // the first commit of the new module
	Old        string            `json:"old"` // SHA-256 of the module
	New        string            `json:"new"` // of the new one
	Way        string            `json:"way"` // keep-memory, export or migrate
	Mismatches []UpgradeMismatch `json:"mismatches,omitempty"`
	Previous   string            `json:"previous,omitempty"` // directory with the old state
}

// UpgradeMismatch is something of the old state that has no place in the new module.
type UpgradeMismatch = engine.Mismatch

// ErrMismatch: something of the old state has no place in the new module; the report says what.
var ErrMismatch = errors.New("the new module has no place for all of the state")

// Upgrade brings the state in dir, which nobody has open, to a new module. At any kill the old
// state or the new one is there, whole. The old one is kept beside it, as DIR.previous, until
// [PruneUpgrade]; [UndoUpgrade] goes back to it.
//
// Receipts, the stream position and the user's bytes carry over; the number of commits goes on.
func Upgrade(ctx context.Context, rt wazero.Runtime, dir string, wasm []byte, o UpgradeOptions) (
	*UpgradeReport, error) {
	dir = filepath.Clean(dir)
	if err := settleUpgrade(dir); err != nil {
		return nil, err
	}
	if there, err := upgrade.HasPrevious(dir); err != nil || there {
		return nil, errors.Join(err, errs.State(dir, "",
			fmt.Errorf("the state before an earlier upgrade is "+
				"still there (mmrun upgrade --prune, or --undo)")))
	}
	hash, err := StateModule(dir)
	if err != nil {
		return nil, err
	}
	m, err := Compile(ctx, rt, wasm)
	if err != nil {
		return nil, err
	}
	u := &upgrader{ctx: ctx, rt: rt, dir: dir, new: m, o: o, boot: statedir.Boot(),
		report: &UpgradeReport{Dir: dir, Old: fmt.Sprintf("%x", hash),
			New: fmt.Sprintf("%x", m.Hash())}}
	err = u.run(hash)
	return u.report, errors.Join(err, m.Close(context.WithoutCancel(ctx)))
}

// upgrader is one call of Upgrade.
type upgrader struct {
	ctx    context.Context
	rt     wazero.Runtime
	dir    string
	new    *Module
	o      UpgradeOptions
	boot   [16]byte
	report *UpgradeReport
}

func (u *upgrader) run(old [32]byte) (err error) {
	if old == u.new.Hash() {
		return errs.State(u.dir, "", errors.New("it has this module already"))
	}
	next := upgrade.Next(u.dir)
	defer func() {
		if err != nil || u.o.DryRun {
			if exists, _ := statedir.Exists(next); exists {
				err = errors.Join(err, upgrade.Discard(next))
			}
		}
	}()
	switch {
	case u.o.Migrate != nil:
		u.report.Way = "migrate"
		err = u.migrate(next, u.o.Migrate)
	case u.o.KeepMemory:
		u.report.Way = "keep-memory"
		err = u.keepMemory(next)
	default:
		u.report.Way = "export"
		err = u.migrate(next, u.byExport)
	}
	if err != nil || u.o.DryRun {
		return err
	}
	lock, err := upgrade.Lock(u.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	// The history goes on with the old state; the new one begins its own.
	keep, ok, err := history.Remembered(u.dir)
	if err == nil && ok {
		err = history.Remember(next, keep)
	}
	if err != nil {
		return errs.State(u.dir, "history", err)
	}
	if err := upgrade.Put(u.dir); err != nil {
		return err
	}
	u.report.Previous = upgrade.Previous(u.dir)
	return nil
}

// keepMemory carries over what the state holds.
func (u *upgrader) keepMemory(next string) (err error) {
	im, err := u.oldImage()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	opts, err := newOptions(u.o.Options)
	if err != nil {
		return err
	}
	carried, mismatches, err := engine.Carry(u.ctx, im, u.new.code, opts)
	if err != nil {
		return err
	}
	u.report.Mismatches = mismatches
	var refused []string
	for _, m := range mismatches {
		if !slices.Contains(u.o.Allow, m.Name) {
			refused = append(refused, m.Name+": "+m.Why)
		}
	}
	if len(refused) > 0 {
		return errs.Statef(ErrMismatch, u.dir, "%w:\n  %s", ErrMismatch,
			strings.Join(refused, "\n  "))
	}
	if err := u.build(next, im, carried); err != nil || !u.o.Data {
		return err
	}
	in, err := u.new.Open(u.ctx, next, u.o.Options...)
	if err != nil {
		return err
	}
	err = in.Update(u.ctx, func(tx *Tx) error {
		name := u.new.code.Info.Init
		if name == "" {
			return nil // it has no data
		}
		_, err := tx.Module().ExportedFunction(name).Call(u.ctx)
		return err
	})
	return errors.Join(err, in.Close(context.WithoutCancel(u.ctx)))
}

// byExport hands over what the old guest prints.
func (u *upgrader) byExport(old, new *Tx) error {
	for _, side := range []struct {
		tx   *Tx
		name string
	}{{old, SaveName}, {new, LoadName}} {
		if _, err := side.tx.in.function(side.name, 0); err != nil {
			return errs.Statef(ErrUnsupported, u.dir,
				"nothing says how its data get to the new module: the "+
					"modules export no %s and %s, and neither the memory is kept (--keep-memory) "+
					"nor a function "+
					"given (docs/life.md): %w", SaveName, LoadName, err)
		}
	}
	if _, err := old.Call(u.ctx, SaveName); err != nil {
		return err
	}
	if f, err := old.in.find(flusher); err == nil && takesAndGivesI32(f.def, 1) {
		if err := f.call(u.ctx, []uint64{0}); err != nil {
			return err
		}
	}
	if old.in.io.full {
		return errTooMuchOutput
	}
	new.in.io.input = old.in.io.take()
	_, err := new.Call(u.ctx, LoadName)
	return err
}

// migrate makes a state of the new module, has carry fill it from the old one, and continues the
// old one's numbers.
func (u *upgrader) migrate(next string, carry func(old, new *Tx) error) (err error) {
	opts := append(slices.Clone(u.o.Options), WithHandler(nil))
	from, err := Open(u.ctx, u.rt, u.dir, nil, opts...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close(context.WithoutCancel(u.ctx))) }()
	young := upgrade.Young(u.dir)
	if exists, _ := statedir.Exists(young); exists { // of an upgrade that was killed
		if err := upgrade.Discard(young); err != nil {
			return err
		}
	}
	to, err := u.new.Open(u.ctx, young, append(opts, WithMode(from.Mode()))...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, upgrade.Discard(young)) }()
	err = from.View(u.ctx, func(old *Tx) error {
		return to.Update(u.ctx, func(new *Tx) error {
			new.SetMeta(old.Meta())
			return carry(old, new)
		})
	})
	if err = errors.Join(err, to.Close(context.WithoutCancel(u.ctx))); err != nil {
		return err
	}
	im, err := engine.OpenImage(vfs.OS, young, u.boot)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	old := &engine.Image{State: from.store.State(), Hash: from.store.Guest().Code().Hash}
	im.State.Seq, im.State.Kept = old.State.Seq+1, old.State.Kept
	return u.build(next, old, im)
}

func (u *upgrader) oldImage() (*engine.Image, error) {
	im, err := engine.OpenImage(vfs.OS, u.dir, u.boot)
	if err == nil {
		im.StopWith(u.ctx)
	}
	return im, err
}

// build makes the new state, which says where it comes from.
func (u *upgrader) build(next string, old, im *engine.Image) error {
	if len(old.State.Kept[section.Frames-section.FirstKept]) > 0 {
		return errs.Statef(ErrUnsupported, u.dir,
			"a program waits in it: its stack means nothing to another "+
				"module")
	}
	u.report.Seq = im.State.Seq
	im.State.Kept[section.Upgrade-section.FirstKept] = encodeOrigin(old.Hash, im.State.Seq)
	im.State.Kept[section.TrackerCosts-section.FirstKept] = nil
	return engine.Build(vfs.OS, next, u.boot, im, nil)
}

/*
The section of the upgrade:

	bytes
	    1  version of this layout, 1
	   32  SHA-256 of the module before
	    8  sequence number of the first commit with this one
*/
const (
	originVersion = 1
	originLength  = 41
)

func encodeOrigin(hash [32]byte, seq uint64) []byte {
	return binary.LittleEndian.AppendUint64(append([]byte{originVersion}, hash[:]...), seq)
}

// originOf is where the state in dir comes from; ok is false if it was never upgraded.
func originOf(dir string) (hash [32]byte, seq, now uint64, ok bool, err error) {
	v, err := engine.Read(vfs.OS, dir, nil)
	if err != nil {
		return hash, 0, 0, false, err
	}
	b := v.State.Kept[section.Upgrade-section.FirstKept]
	if len(b) != originLength || b[0] != originVersion {
		return hash, 0, v.State.Seq, false, nil
	}
	return [32]byte(b[1:33]), binary.LittleEndian.Uint64(b[33:]), v.State.Seq, true, nil
}

// settleUpgrade ends an upgrade of dir that was killed.
func settleUpgrade(dir string) error {
	return upgrade.Settle(dir, func(next string) (bool, error) {
		hash, _, now, ok, err := originOf(dir)
		if err != nil || !ok {
			return false, err
		}
		is, err := StateModule(next)
		if err != nil || is != hash {
			return false, nil
		}
		// Back and forth between two modules: one that was made and not put in place says that it
		// comes from the state as it is.
		made, err := madeOf(next, dir, now)
		return err == nil && !made, err
	})
}

// madeOf tells whether the state in dir is one that an upgrade has made of the one in old, which is
// at a commit.
func madeOf(dir, old string, at uint64) (bool, error) {
	module, err := StateModule(old)
	if err != nil {
		return false, err
	}
	from, first, _, ok, err := originOf(dir)
	return ok && from == module && first > at, err
}

// undone tells whether the state in dir is the old one again, beside the new one: an undo was
// killed.
func undone(dir string) (bool, error) {
	previous := upgrade.Previous(dir)
	v, err := engine.Read(vfs.OS, previous, nil)
	if err != nil {
		return false, err
	}
	if isNew, err := madeOf(dir, previous, v.State.Seq); err != nil || isNew {
		return false, err
	}
	return madeOf(previous, dir, 0)
}

// UndoUpgrade goes back to the state before the last upgrade, and its module. If commits were made
// since, it refuses, unless they are to be discarded.
func UndoUpgrade(dir string, discardCommits bool) (seq uint64, err error) {
	dir = filepath.Clean(dir)
	if err := settleUpgrade(dir); err != nil {
		return 0, err
	}
	if there, err := upgrade.HasPrevious(dir); err != nil || !there {
		return 0, errors.Join(err, errs.Statef(ErrNotExist, dir,
			"there is no state before an upgrade to go "+
				"back to"))
	}
	lock, err := upgrade.Lock(dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	_, first, now, ok, err := originOf(dir)
	if err != nil && !discardCommits {
		return 0, err
	}
	if is, err := undone(dir); err == nil && is {
		return now, upgrade.Discard(upgrade.Previous(dir))
	}
	if ok && now > first && !discardCommits {
		return 0, errs.State(dir, "",
			fmt.Errorf("%d commits were made since the upgrade, which would be lost "+
				"(--discard-commits)", now-first))
	}
	v, err := engine.Read(vfs.OS, upgrade.Previous(dir), nil)
	if err != nil {
		return 0, err
	}
	return v.State.Seq, upgrade.Back(dir)
}

// PruneUpgrade takes away the state before the last upgrade.
func PruneUpgrade(dir string) error {
	dir = filepath.Clean(dir)
	if err := settleUpgrade(dir); err != nil {
		return err
	}
	if there, err := upgrade.HasPrevious(dir); err != nil || !there {
		return err
	}
	return upgrade.Discard(upgrade.Previous(dir))
}
