package fsck

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/internal/statedir"

	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

// VerifyReport is what [Verify] found.
type VerifyReport struct {
	Dir    string  `json:"state"`
	Mode   string  `json:"mode,omitempty"`
	Seq    uint64  `json:"seq"`              // the commit that Open would resume from
	Module string  `json:"module,omitempty"` // SHA-256, hexadecimal
	Sound  bool    `json:"sound"`            // no check has a problem
	Checks []Check `json:"checks"`
}

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"` // what was found
	// Notes are about what a kill or a power cut may leave, and what costs nothing that was
	// promised.
	Notes    []string `json:"notes,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

func (c *Check) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

func (c *Check) problem(format string, args ...any) {
	c.Problems = append(c.Problems, fmt.Sprintf(format, args...))
}

// Verify checks whether Open would succeed on a state and whether its files hold what mmrun wrote:
// both copies of the header and of the small state, the module, the wal and what it would
// bring back, the length of the memory file and, in Atomic mode, the checksum of each of its
// pages. It reads all of the memory file. Nothing is changed or mapped, and permission to read
// is enough.
//
// The report names the problems. An error means that there is nothing to verify
// (mmrun.ErrNotExist), that the state is in use (mmrun.ErrLocked), or that it could not be read.
// While Verify runs, nobody can open the state.
func Verify(dir string) (*VerifyReport, error) {
	return Checker{}.Verify(dir)
}

// Verify is the function of that name.
func (c Checker) Verify(dir string) (*VerifyReport, error) {
	c = c.orDefault()
	dir = filepath.Clean(dir)
	if err := statedir.MustExist(dir); err != nil {
		return nil, err
	}
	release, last, err := statedir.KeepOut(dir, c.Boot)
	if err != nil {
		return nil, err
	}
	defer release()
	v := newVerification(c, last, dir)
	if err := v.run(); err != nil {
		return nil, fmt.Errorf("state %s: %w", dir, err)
	}
	r := v.report
	r.Sound = !slices.ContainsFunc(r.Checks, func(c Check) bool { return len(c.Problems) > 0 })
	return r, nil
}

type verification struct {
	fs     vfs.FS
	boot   [16]byte // the present one of the machine
	last   statedir.LastExit
	report *VerifyReport
	state  *engine.View
	named  engine.PageSet // pages that the log brings forward
}

func newVerification(c Checker, last statedir.LastExit, dir string) *verification {
	return &verification{fs: c.FS, boot: c.Boot, last: last, report: &VerifyReport{Dir: dir},
		named: make(engine.PageSet)}
}

func (v *verification) run() error {
	state, err := engine.Read(v.fs, v.report.Dir, v.named.Add)
	if err != nil && !errors.Is(err, errs.ErrCorrupt) && !errors.Is(err, errs.ErrTorn) &&
		!errors.Is(err, errs.ErrUnsupported) {
		return err
	}
	v.state = state
	v.checkGlobals(err)
	if err != nil {
		return nil // nothing else makes sense without it
	}
	v.report.Mode = state.Sidecar.Header.Mode.String()
	v.report.Module = fmt.Sprintf("%x", state.Sidecar.Header.Module)
	v.report.Seq = state.State.Seq
	v.checkModule()
	if state.Sidecar.Header.Mode == engine.Atomic {
		v.checkWAL()
	}
	return v.checkMemory()
}

func (v *verification) open(name string) (vfs.File, error) {
	return v.fs.OpenFile(filepath.Join(v.report.Dir, name), os.O_RDONLY, 0)
}

func (v *verification) add(name string) *Check {
	v.report.Checks = append(v.report.Checks, Check{Name: name})
	return &v.report.Checks[len(v.report.Checks)-1]
}

func (v *verification) checkGlobals(err error) {
	c := v.add("globals")
	s := &v.state.Sidecar
	for i, err := range s.HeaderErrs {
		if err != nil {
			c.note("copy %d of the header: %v", i, err)
		}
	}
	for i, slot := range s.Slots {
		if slot.Err != nil {
			c.note("slot %d: %v", i, slot.Err)
		}
	}
	if err != nil {
		c.problem("%v", err)
		return
	}
	c.Detail = fmt.Sprintf("%d bytes, slot %d counts: commit %d", s.Size, s.Newest,
		s.Slots[s.Newest].Seq)
	if err := engine.CheckWhole(*s, v.last); err != nil {
		c.problem("%v", err)
	}
}

func (v *verification) checkModule() {
	c := v.add("module")
	c.Detail = fmt.Sprintf("%d bytes", len(v.state.Module))
	if err := v.state.ModuleErr; err != nil {
		c.problem("%v", err)
	}
}

func (v *verification) checkWAL() {
	c := v.add("wal")
	rec := v.state.Recovery
	c.Detail = fmt.Sprintf("%d commits behind the checkpoint, the last one is %d", rec.Records,
		v.state.State.Seq)
	if err := engine.Unexplained(v.last, rec); err != nil {
		c.problem("%v", err)
	} else if rec.Torn {
		c.note("its end is torn: what was appended behind commit %d and not synced is lost, as a "+
			"power cut may do", rec.LastSeq)
	}
	if err := v.state.WALErr; err != nil {
		c.problem("%v", err)
	}
	if v.state.WAL == nil {
		return
	}
	for i, s := range v.state.WAL.Report() {
		if s.Header == wal.HeaderDamaged && v.state.WALErr == nil {
			c.problem("%s: %s", statedir.WALNames[i], s.HeaderProblem)
		}
	}
}

func (v *verification) checkMemory() error {
	want := int64(v.state.Slot.MemoryPages) * wasmPageSize
	if v.state.Fits && v.state.Info.Memory == nil {
		return v.checkTogether()
	}
	c := v.add("memory")
	memory, err := v.open(statedir.MemoryName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !v.state.Fits && want == 0 {
			return nil // of a module without memory, perhaps
		}
		c.problem("%s is missing", statedir.MemoryName)
		return nil
	case err != nil:
		return err
	}
	defer memory.Close()
	size, err := memory.Size()
	if err != nil {
		return err
	}
	c.Detail = fmt.Sprintf("%d bytes", want)
	if size < want {
		c.problem("%s has %d bytes, %d were committed", statedir.MemoryName, size, want)
		return nil
	}
	if v.state.Sidecar.Header.Mode != engine.Atomic {
		return nil
	}
	// Pages that commits in the wal have added are checked as well: in the file they are zeros,
	// unless a checkpoint had begun to write them.
	return v.checkSums(memory, uint64(v.state.State.MemoryPages)*wasmPageSize)
}

// checkTogether is for a state without a memory: slot and log are all that there is.
func (v *verification) checkTogether() error {
	if v.state.Sidecar.Header.Mode != engine.Atomic {
		return nil
	}
	err := engine.CheckTogether(v.state, nil)
	if errors.Is(err, errs.ErrCorrupt) {
		v.add("together").problem("%v", err)
		return nil
	}
	return err
}

// checkSums holds each page that the wal does not bring forward against its checksum.
func (v *verification) checkSums(memory vfs.File, size uint64) error {
	c := v.add("page sums")
	sums, err := v.open(statedir.ChecksumsName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.problem("%s is missing", statedir.ChecksumsName)
		return nil
	case err != nil:
		return err
	}
	defer sums.Close()
	switch err := engine.CheckTogether(v.state, sums); {
	case errors.Is(err, errs.ErrCorrupt), errors.Is(err, errs.ErrUnsupported):
		c.problem("%v", err)
		return nil
	case err != nil:
		return err
	}
	bad, err := engine.BadPages(v.state, memory, sums, size, v.named)
	if err != nil {
		return err
	}
	c.Detail = fmt.Sprintf("%d pages of %d bytes", size/pageSize, pageSize)
	const most = 16
	for i := 0; i < len(bad); {
		if len(c.Problems) == most {
			c.problem("and %d pages more", len(bad)-i)
			break
		}
		j := i + 1
		for j < len(bad) && bad[j] == bad[j-1]+1 {
			j++
		}
		if j == i+1 {
			c.problem("page %d (addresses %#x to %#x) does not have its checksum", bad[i],
				uint64(bad[i])*pageSize, uint64(bad[i]+1)*pageSize-1)
		} else {
			c.problem("pages %d to %d (addresses %#x to %#x) do not have their checksums", bad[i],
				bad[j-1],
				uint64(bad[i])*pageSize, uint64(bad[j-1]+1)*pageSize-1)
		}
		i = j
	}
	return nil
}
