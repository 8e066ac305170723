package mmrun

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/delta"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// RepairReport is what [Repair] did.
type RepairReport struct {
	Dir      string   `json:"state"`
	Problems []string `json:"problems"`         // what was wrong; none: nothing was done
	Seq      uint64   `json:"seq"`              // the commit that the state is at now
	Backup   string   `json:"backup,omitempty"` // directory with the files as they were
	// Lost says in words what could not be brought back.
	Lost []string `json:"lost,omitempty"`
}

// errNeedsForce: there is no commit to go back to whose bytes are all there.
var errNeedsForce = errors.New("no intact commit is left: with force it is taken as it is")

// Repair brings a damaged state to its last intact commit: the last one whose bytes can all be
// accounted for by the newest valid slot, the page sums and the wal up to its first damage. The
// files as they were are kept in a directory beside the state. A state without damage is left alone.
//
// Damage that no commit can be told apart from (a page whose checksum is wrong and that the wal
// does not hold, a lost slot, a torn continuous state) is an error that wraps ErrCorrupt or ErrTorn,
// and changes nothing, unless force is given: then what is there is taken as it is, and the
// report says what is doubtful. A module that is missing or wrong can only be put back by hand.
func Repair(dir string, force bool) (*RepairReport, error) {
	return repairOn(vfs.OS, bootID(), dir, force)
}

// repairOn is Repair on a file system and in a boot of the machine.
func repairOn(fsys vfs.FS, boot [16]byte, dir string, force bool) (*RepairReport, error) {
	dir = filepath.Clean(dir)
	if exists, err := stateExists(dir); err != nil {
		return nil, err
	} else if !exists {
		return nil, asKind(ErrNotExist, fmt.Errorf("state %s: %w", dir, ErrNotExist))
	}
	lock, last, err := lockDir(dir, boot)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	r := &repair{verification: newVerification(fsys, boot, last, dir), force: force, out: &RepairReport{Dir: dir}}
	if err := r.do(); err != nil {
		return r.out, err
	}
	return r.out, nil
}

type repair struct {
	*verification
	force bool
	out   *RepairReport
}

func (r *repair) do() error {
	if err := r.run(); err != nil {
		return fmt.Errorf("state %s: %w", r.out.Dir, err)
	}
	for _, c := range r.report.Checks {
		for _, p := range c.Problems {
			r.out.Problems = append(r.out.Problems, c.Name+": "+p)
		}
	}
	if r.state.state != nil {
		r.out.Seq = r.state.state.Seq
	}
	if len(r.out.Problems) == 0 {
		return nil
	}
	if r.state.state == nil {
		return asKind(ErrCorrupt, fmt.Errorf("state %s: cannot be repaired: %s", r.out.Dir, r.out.Problems[0]))
	}
	if !r.state.fits {
		return asKind(ErrCorrupt, fmt.Errorf("state %s: cannot be repaired before its module is back in place: %w",
			r.out.Dir, r.state.moduleErr))
	}
	// A wal that could not be read, or that a newer program has written, is not a damaged one: there may be
	// commits in it.
	if err := r.state.walErr; err != nil && !errors.Is(err, ErrCorrupt) {
		return err
	}
	if err := r.judge(); err != nil {
		return err
	}
	backup, err := r.backUp()
	if err != nil {
		return fmt.Errorf("state %s: keep the damaged files: %w", r.out.Dir, err)
	}
	r.out.Backup = backup
	// That of the backup as well, which lies beside the state.
	if err := syncNames(r.fs, r.out.Dir); err != nil {
		return fmt.Errorf("state %s: %w", r.out.Dir, err)
	}
	if Mode(r.state.sidecar.Header.Mode) == Continuous {
		err = r.repairContinuous()
	} else {
		err = r.repairAtomic()
	}
	if err != nil {
		return fmt.Errorf("state %s: repair (the files as they were are in %s): %w", r.out.Dir, backup, err)
	}
	return nil
}

// judge says what is lost, and refuses what only force may accept.
func (r *repair) judge() error {
	v := r.state
	doubtful := func(kind error, format string, args ...any) error {
		what := fmt.Sprintf(format, args...)
		if !r.force {
			return asKind(kind, fmt.Errorf("state %s: %s; %w", r.out.Dir, what, errNeedsForce))
		}
		r.out.Lost = append(r.out.Lost, what)
		return nil
	}
	if v.walErr != nil || v.recovery.Torn {
		r.out.Lost = append(r.out.Lost, fmt.Sprintf("all commits after %d", v.state.Seq))
	}
	switch err := v.sidecar.Check(r.boot); {
	case errors.Is(err, globalsfile.ErrTorn):
		if err := doubtful(ErrTorn, "memory and globals may not belong together: %v", err); err != nil {
			return err
		}
	case err != nil && v.recovery.Records == 0: // the wal does not lead on from the older slot
		if err := doubtful(ErrCorrupt, "the globals are those of commit %d, memory is newer: %v", v.slot.Seq, err); err != nil {
			return err
		}
	}
	for _, c := range r.report.Checks {
		if c.Name != "memory" && c.Name != "page sums" {
			continue
		}
		for _, p := range c.Problems {
			if err := doubtful(ErrCorrupt, "%s: %s", c.Name, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *repair) repairAtomic() (err error) {
	dir := r.out.Dir
	var files closers
	defer func() { err = errors.Join(err, files.close()) }()
	sidecar, err := globalsfile.Open(r.fs, filepath.Join(dir, globalsName))
	if err != nil {
		return err
	}
	files.add(sidecar.Close)
	fo := &folder{dir: dir, sidecar: sidecar, logger: slog.New(slog.DiscardHandler), state: delta.Clone(r.state.slot)}
	end := int64(r.state.state.MemoryPages) * mmapmem.WasmPageSize
	if r.state.info.Memory != nil {
		open := func(name string) (vfs.File, error) {
			f, err := r.fs.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE, filePerm)
			if err == nil {
				files.add(f.Close)
			}
			return f, err
		}
		if fo.memory, err = open(memoryName); err != nil {
			return err
		}
		sums, err := open(sumsName)
		if err != nil {
			return err
		}
		if err := fo.memory.Truncate(end); err != nil {
			return err
		}
		fo.sums = mmapmem.NewSums(sums)
		fo.patcher = mmapmem.NewPatcher(fo.memory, fo.sums)
		if r.force {
			fo.patcher.Lenient()
		}
	}
	// The write-ahead rule: what the wal holds may be in the page cache only.
	if err := r.syncWAL(); err != nil {
		return err
	}
	if r.state.wal != nil {
		// The error, if there is one, is the damage: what came before it has been applied.
		from := fo.state.Seq
		if _, err := r.state.wal.Replay(from, fo.apply); err != nil && fo.state.Seq != r.state.state.Seq {
			return err
		}
	}
	if err := fo.publish(); err != nil {
		return err
	}
	if fo.memory != nil {
		if err := fo.sums.Build(fo.memory, uint64(end)); err != nil {
			return err
		}
		if err := fo.sums.Sync(); err != nil {
			return err
		}
	}
	// The wal comes last: until then a repair that is cut off can be run again.
	j, err := wal.Create(r.fs, dir, r.segmentSize(), fo.state.Seq)
	if err != nil {
		return err
	}
	r.out.Seq = fo.state.Seq
	return j.Close()
}

// syncWAL puts the wal's files on the disk as they are. They are written again before, since after a sync that
// failed the kernel takes pages for clean that are not on the disk.
func (r *repair) syncWAL() error {
	for _, name := range walNames {
		f, err := r.fs.OpenFile(filepath.Join(r.out.Dir, name), os.O_RDWR, filePerm)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			if err = rewriteFile(f); err == nil {
				err = f.Sync()
			}
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// segmentSize is the size of the wal's segments, as far as it can still be seen.
func (r *repair) segmentSize() int64 {
	for _, name := range walNames {
		if fi, err := os.Stat(filepath.Join(r.out.Dir, name)); err == nil && fi.Size() >= MinWALSize/2 && fi.Size() <= DefaultWALSize {
			return fi.Size()
		}
	}
	return DefaultWALSize / 2
}

// repairContinuous accepts a torn state.
func (r *repair) repairContinuous() error {
	sidecar, err := globalsfile.Open(r.fs, filepath.Join(r.out.Dir, globalsName))
	if err != nil {
		return err
	}
	s := delta.Clone(r.state.state)
	seq, _ := sidecar.Event()
	s.Seq = max(s.Seq, seq)
	if r.state.info.Memory != nil {
		if err := r.settleMemory(s, sidecar.SyncFailed()); err != nil {
			return errors.Join(err, sidecar.Close())
		}
	}
	err = sidecar.WriteSlot(s)
	if err == nil {
		sidecar.EndEvent(s.Seq)
		err = sidecar.Sync()
	}
	if err == nil {
		err = sidecar.SetClean(true, r.boot)
	}
	r.out.Seq = s.Seq
	return errors.Join(err, sidecar.Close())
}

// settleMemory makes the memory file as long as what is in it, and puts it on the disk: the header is about to say that
// it is there.
func (r *repair) settleMemory(s *globalsfile.State, syncFailed bool) error {
	memory, err := r.fs.OpenFile(filepath.Join(r.out.Dir, memoryName), os.O_RDWR, filePerm)
	if err != nil {
		return err
	}
	defer memory.Close()
	size, err := memory.Size()
	if err != nil {
		return err
	}
	s.MemoryPages = tornPages(s.MemoryPages, size, r.state.maxPages())
	if err := memory.Truncate(int64(s.MemoryPages) * mmapmem.WasmPageSize); err != nil {
		return err
	}
	if syncFailed {
		if err := rewriteFile(memory); err != nil {
			return err
		}
	}
	return memory.Sync()
}

// backUp copies the files of a state into a new directory beside it, holes as holes, and puts the copies on the disk: they
// are all that is left of the state as it was, once the first of its files changes.
func (r *repair) backUp() (string, error) {
	var backup string
	for n := 1; ; n++ {
		backup = r.out.Dir + ".damaged-" + strconv.Itoa(n)
		err := r.fs.Mkdir(backup, dirPerm)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	if err := r.backUpTo(backup); err != nil {
		return "", errors.Join(err, os.RemoveAll(backup))
	}
	return backup, nil
}

func (r *repair) backUpTo(backup string) error {
	entries, err := os.ReadDir(r.out.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == lockName || !e.Type().IsRegular() {
			continue
		}
		if err := copySparse(r.fs, filepath.Join(backup, e.Name()), filepath.Join(r.out.Dir, e.Name())); err != nil {
			return err
		}
	}
	return r.fs.SyncDir(backup)
}

// copySparse copies a file and leaves out runs of zeros.
func copySparse(fsys vfs.FS, to, from string) (err error) {
	src, err := fsys.OpenFile(from, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := fsys.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, filePerm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	buf, zeros := make([]byte, mmapmem.WasmPageSize), make([]byte, mmapmem.WasmPageSize)
	for offset := int64(0); ; {
		n, err := src.ReadAt(buf, offset)
		if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
			if _, err := dst.WriteAt(buf[:n], offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		switch {
		case err == io.EOF:
			if err := dst.Truncate(offset); err != nil {
				return err
			}
			return dst.Sync()
		case err != nil:
			return err
		}
	}
}
