package fsck

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/vfs"
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
// files as they were are kept in a directory beside the state. A state without damage is left
// alone.
//
// Damage that no commit can be told apart from (a page whose checksum is wrong and that the wal
// does not hold, a lost slot, a torn continuous state) is an error that wraps mmrun.ErrCorrupt or
// mmrun.ErrTorn, and changes nothing, unless force is given: then what is there is taken as it is,
// and the report says what is doubtful. A module that is missing or wrong can only be put back by
// hand.
func Repair(dir string, force bool) (*RepairReport, error) {
	return Checker{}.Repair(dir, force)
}

// Repair is the function of that name.
func (c Checker) Repair(dir string, force bool) (*RepairReport, error) {
	c = c.orDefault()
	dir = filepath.Clean(dir)
	if err := statedir.MustExist(dir); err != nil {
		return nil, err
	}
	lock, err := statedir.Acquire(dir, c.Boot)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	r := &repair{lock: lock, verification: newVerification(c, lock.Last, dir), force: force,
		out: &RepairReport{Dir: dir}}
	if err := r.do(); err != nil {
		return r.out, err
	}
	return r.out, nil
}

type repair struct {
	*verification
	lock  *statedir.Lock
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
	if r.state.State != nil {
		r.out.Seq = r.state.State.Seq
	}
	if len(r.out.Problems) == 0 {
		return nil
	}
	if r.state.State == nil {
		return errs.As(errs.ErrCorrupt, fmt.Errorf("state %s: cannot be repaired: %s", r.out.Dir,
			r.out.Problems[0]))
	}
	if !r.state.Fits {
		return errs.As(errs.ErrCorrupt,
			fmt.Errorf("state %s: cannot be repaired before its module is back in place: %w",
				r.out.Dir, r.state.ModuleErr))
	}
	// A wal that could not be read, or that a newer program has written, is not a damaged one:
	// there may be commits in it.
	if err := r.state.WALErr; err != nil && !errors.Is(err, errs.ErrCorrupt) {
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
	if err := statedir.Settle(r.fs, r.out.Dir); err != nil {
		return fmt.Errorf("state %s: %w", r.out.Dir, err)
	}
	if r.state.Sidecar.Header.Mode == engine.Continuous {
		if r.out.Seq, err = engine.AcceptTorn(r.fs, r.boot, r.state); err == nil {
			err = r.lock.SayClosed() // whatever was copied, from where: this is the state now
		}
	} else {
		r.out.Seq, err = engine.Rebuild(r.fs, r.state, r.force)
	}
	if err != nil {
		return fmt.Errorf("state %s: repair (the files as they were are in %s): %w", r.out.Dir,
			backup, err)
	}
	return nil
}

// judge says what is lost, and refuses what only force may accept.
func (r *repair) judge() error {
	v := r.state
	doubtful := func(kind error, format string, args ...any) error {
		what := fmt.Sprintf(format, args...)
		if !r.force {
			return errs.As(kind, fmt.Errorf("state %s: %s; %w", r.out.Dir, what, errNeedsForce))
		}
		r.out.Lost = append(r.out.Lost, what)
		return nil
	}
	if v.WALErr != nil || v.Recovery.Torn {
		r.out.Lost = append(r.out.Lost, fmt.Sprintf("all commits after %d", v.State.Seq))
	}
	switch err := engine.CheckWhole(v.Sidecar, r.last); {
	case errors.Is(err, globalsfile.ErrTorn):
		if err := doubtful(errs.ErrTorn, "memory and globals may not belong together: %v",
			err); err != nil {
			return err
		}
	case err != nil && v.Recovery.Records == 0: // the wal does not lead on from the older slot
		if err := doubtful(errs.ErrCorrupt,
			"the globals are those of commit %d, memory is newer: "+
				"%v", v.Slot.Seq, err); err != nil {
			return err
		}
	}
	for _, c := range r.report.Checks {
		if c.Name != "memory" && c.Name != "page sums" {
			continue
		}
		for _, p := range c.Problems {
			if err := doubtful(errs.ErrCorrupt, "%s: %s", c.Name, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// backUp copies the files of a state into a new directory beside it, holes as holes, and puts the
// copies on the disk: they are all that is left of the state as it was, once the first of its files
// changes.
func (r *repair) backUp() (string, error) {
	var backup string
	for n := 1; ; n++ {
		backup = r.out.Dir + ".damaged-" + strconv.Itoa(n)
		err := r.fs.Mkdir(backup, statedir.DirPerm)
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
		if e.Name() == statedir.LockName || !e.Type().IsRegular() {
			continue
		}
		if err := copySparse(r.fs, filepath.Join(backup, e.Name()),
			filepath.Join(r.out.Dir, e.Name())); err != nil {
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
	dst, err := fsys.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, statedir.FilePerm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	size, err := src.Size()
	if err != nil {
		return err
	}
	buf, zeros := make([]byte, wasmPageSize), make([]byte, wasmPageSize)
	for offset := int64(0); offset < size; {
		// Holes are not read: what a file claims to have may take hours.
		start, end, err := vfs.NextData(src, offset)
		if err != nil {
			return err
		}
		for offset = start; offset < end; {
			n, err := src.ReadAt(buf[:min(int64(len(buf)), end-offset)], offset)
			if n > 0 && !bytes.Equal(buf[:n], zeros[:n]) {
				if _, err := dst.WriteAt(buf[:n], offset); err != nil {
					return err
				}
			}
			offset += int64(n)
			if err != nil && err != io.EOF {
				return err
			}
			if n == 0 {
				offset, size = end, offset // the file has become shorter
			}
		}
		if start >= size {
			break
		}
	}
	if err := dst.Truncate(size); err != nil {
		return err
	}
	return dst.Sync()
}
