package mmrun

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/mmapmem"
	"github.com/mmrun/mmrun/rewriter"
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
	// Notes are about what a kill or a power cut may leave, and what costs nothing that was promised.
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
// The report names the problems. An error means that there is nothing to verify (ErrNotExist), that the
// state is in use (ErrLocked), or that it could not be read. While Verify runs, nobody can open
// the state.
func Verify(dir string) (*VerifyReport, error) {
	return verifyOn(vfs.OS, statedir.Boot(), dir)
}

// verifyOn is Verify on a file system and in a boot of the machine.
func verifyOn(fsys vfs.FS, boot [16]byte, dir string) (*VerifyReport, error) {
	dir = filepath.Clean(dir)
	if err := statedir.MustExist(dir); err != nil {
		return nil, err
	}
	release, last, err := statedir.KeepOut(dir, boot)
	if err != nil {
		return nil, err
	}
	defer release()
	v := newVerification(fsys, boot, last, dir)
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
	state  *stateView
	named  map[uint32]bool // pages that the wal brings forward, by index
	// suspects are those of them that do not have their checksum; nil until all are known.
	suspects map[uint32]*mmapmem.Suspect
}

func newVerification(fsys vfs.FS, boot [16]byte, last statedir.LastExit, dir string) *verification {
	return &verification{fs: fsys, boot: boot, last: last, report: &VerifyReport{Dir: dir}, named: make(map[uint32]bool)}
}

func (v *verification) run() error {
	state, err := readState(v.fs, v.report.Dir, v.nameRecord)
	if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrTorn) && !errors.Is(err, ErrUnsupported) {
		return err
	}
	v.state = state
	v.checkGlobals(err)
	if err != nil {
		return nil // nothing else makes sense without it
	}
	v.report.Mode = Mode(state.sidecar.Header.Mode).String()
	v.report.Module = fmt.Sprintf("%x", state.sidecar.Header.Module)
	v.report.Seq = state.state.Seq
	v.checkModule()
	if Mode(state.sidecar.Header.Mode) == Atomic {
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
	s := &v.state.sidecar
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
	c.Detail = fmt.Sprintf("%d bytes, slot %d counts: commit %d", s.Size, s.Newest, s.Slots[s.Newest].Seq)
	if err := checkWholeness(*s, v.last); err != nil {
		c.problem("%v", err)
	}
}

func (v *verification) checkModule() {
	c := v.add("module")
	c.Detail = fmt.Sprintf("%d bytes", len(v.state.module))
	if err := v.state.moduleErr; err != nil {
		c.problem("%v", err)
	}
	if v.state.fits {
		v.checkReferences(c)
	}
}

// checkReferences looks for functions that the module does not have, which could not be put back.
func (v *verification) checkReferences(c *Check) {
	check := func(where string, index int32) {
		if index < -1 || index >= int32(v.state.info.FuncCount) {
			c.problem("%s refers to function %d, the module has %d", where, index, v.state.info.FuncCount)
		}
	}
	for i, t := range v.state.state.Tables {
		if v.state.info.Tables[i].Type != rewriter.FuncRef {
			continue
		}
		for at, index := range t {
			check(fmt.Sprintf("table %d, entry %d", v.state.info.Tables[i].Index, at), index)
		}
	}
	for i, g := range v.state.state.Globals {
		if rewriter.ValType(g.Type) == rewriter.FuncRef {
			check(fmt.Sprintf("global %d", v.state.info.Globals[i].Index), int32(g.Lo))
		}
	}
}

func (v *verification) checkWAL() {
	c := v.add("wal")
	rec := v.state.recovery
	c.Detail = fmt.Sprintf("%d commits behind the checkpoint, the last one is %d", rec.Records, v.state.state.Seq)
	if err := unexplained(v.last, rec); err != nil {
		c.problem("%v", err)
	} else if rec.Torn {
		c.note("its end is torn: what was appended behind commit %d and not synced is lost, as a power cut may do", rec.LastSeq)
	}
	if err := v.state.walErr; err != nil {
		c.problem("%v", err)
	}
	if v.state.wal == nil {
		return
	}
	for i, s := range v.state.wal.Report() {
		if s.Header == wal.HeaderDamaged && v.state.walErr == nil {
			c.problem("%s: %s", statedir.WALNames[i], s.HeaderProblem)
		}
	}
}

// nameRecord notes the pages that a record changes. A checkpoint that was cut off may have been
// writing any of them; see mmapmem.Patcher.
func (v *verification) nameRecord(r wal.Record) {
	for offset, data := range r.Ranges() {
		if len(data) == 0 {
			continue
		}
		end := uint64(offset) + uint64(len(data)) - 1
		for page := uint64(offset) / mmapmem.PageSize; page <= end/mmapmem.PageSize; page++ {
			v.named[uint32(page)] = true
		}
	}
}

// patchSuspects applies a record to the pages under suspicion.
func (v *verification) patchSuspects(r wal.Record) error {
	for offset, data := range r.Ranges() {
		for len(data) > 0 {
			at := int(offset % mmapmem.PageSize)
			n := min(len(data), mmapmem.PageSize-at)
			if s := v.suspects[offset/mmapmem.PageSize]; s != nil {
				s.Patch(at, data[:n])
			}
			offset += uint32(n)
			data = data[n:]
		}
	}
	return nil
}

func (v *verification) checkMemory() error {
	want := int64(v.state.slot.MemoryPages) * mmapmem.WasmPageSize
	if v.state.fits && v.state.info.Memory == nil {
		return nil
	}
	c := v.add("memory")
	memory, err := v.open(statedir.MemoryName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if !v.state.fits && want == 0 {
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
	if Mode(v.state.sidecar.Header.Mode) != Atomic {
		return nil
	}
	// Pages that commits in the wal have added are checked as well: in the file they are zeros, unless
	// a checkpoint had begun to write them.
	return v.checkSums(memory, uint64(v.state.state.MemoryPages)*mmapmem.WasmPageSize)
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
	var bad []uint32
	v.suspects = make(map[uint32]*mmapmem.Suspect)
	if err := mmapmem.Verify(memory, sums, size, func(page uint32) {
		if !v.named[page] {
			bad = append(bad, page)
			return
		}
		v.suspects[page] = nil
	}); err != nil {
		return err
	}
	for page := range v.suspects {
		if v.suspects[page], err = mmapmem.NewSuspect(memory, sums, page); err != nil {
			return err
		}
	}
	if len(v.suspects) > 0 && v.state.wal != nil {
		// The damage of the wal, if there is any, has been reported.
		_, _ = v.state.wal.Replay(v.state.slot.Seq, v.patchSuspects)
	}
	for page, s := range v.suspects {
		if !s.Innocent() {
			bad = append(bad, page)
		}
	}
	slices.Sort(bad)
	c.Detail = fmt.Sprintf("%d pages of %d bytes", size/mmapmem.PageSize, mmapmem.PageSize)
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
				uint64(bad[i])*mmapmem.PageSize, uint64(bad[i]+1)*mmapmem.PageSize-1)
		} else {
			c.problem("pages %d to %d (addresses %#x to %#x) do not have their checksums", bad[i], bad[j-1],
				uint64(bad[i])*mmapmem.PageSize, uint64(bad[j-1]+1)*mmapmem.PageSize-1)
		}
		i = j
	}
	return nil
}
