package fsck

import (
	"encoding/hex"
	"path/filepath"
	"time"

	"github.com/mmrun/mmrun/internal/engine"
	"github.com/mmrun/mmrun/internal/statedir"
	"github.com/mmrun/mmrun/rewriter"
	"github.com/mmrun/mmrun/vfs"
)

// Exists tells whether there is a state in dir. A directory that holds something else is an error.
func Exists(dir string) (bool, error) { return statedir.Exists(dir) }

// Report is what [Inspect] found in a state directory.
type Report struct {
	Dir   string `json:"state"`
	Mode  string `json:"mode"`
	InUse bool   `json:"inUse"`
	Owner int    `json:"owner,omitempty"` // process id, if the state is in use

	Seq           uint64 `json:"seq"`           // of the last commit
	CheckpointSeq uint64 `json:"checkpointSeq"` // up to which memory and globals files go
	Event         uint64 `json:"event"`         // Continuous: the event that runs or ran last
	InEvent       bool   `json:"inEvent"`       // Continuous: it has not ended
	// Continuous: all of it is known to be on the disk
	Clean bool `json:"clean"`
	// why Open would refuse the state, as far as this shows
	Problem string `json:"problem,omitempty"`

	Module string `json:"module"` // SHA-256, hexadecimal
	// bytes; 0 if the copy in the directory cannot be read
	ModuleSize int64           `json:"moduleSize"`
	Memory     *MemoryReport   `json:"memory,omitempty"`
	Globals    []GlobalReport  `json:"globals"`
	Tables     []TableReport   `json:"tables"`
	Segments   []SegmentReport `json:"segments"`
	MetaBytes  int             `json:"metaBytes"`

	// Tracker is what finds changed pages the next time unless something else is asked for, and
	// TrackerReason why.
	Tracker       string `json:"tracker"`
	TrackerReason string `json:"trackerReason"`

	Slots [2]SlotReport `json:"slots"`
	WAL   []WALReport   `json:"wal,omitempty"`
	Files []FileReport  `json:"files"`

	last statedir.LastExit
}

// MemoryReport is about the linear memory.
type MemoryReport struct {
	WasmPages uint32 `json:"wasmPages"`
	Bytes     uint64 `json:"bytes"`
	MaxPages  uint32 `json:"maxWasmPages"` // the most that it can grow to
}

// GlobalReport is one mutable global as of the last commit.
type GlobalReport struct {
	Index uint32 `json:"index"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type"`
	// Lo and Hi are the bits of the value; Hi is used by v128 only. A funcref is the index of its
	// function, -1 for null.
	Lo uint64 `json:"lo"`
	Hi uint64 `json:"hi"`
}

// TableReport is one table that the module can change.
type TableReport struct {
	Index   uint32 `json:"index"`
	Type    string `json:"type"`
	Changed bool   `json:"changed"` // since the module was instantiated
	// function indices, -1 for null; none if it has not changed
	Entries []int32 `json:"entries,omitempty"`
}

// SegmentReport is one segment that the module can drop.
type SegmentReport struct {
	Kind    string `json:"kind"` // data or elem
	Index   uint32 `json:"index"`
	Dropped bool   `json:"dropped"`
}

// SlotReport is one of the two copies of the small state in the globals file.
type SlotReport struct {
	Write   uint64 `json:"write"` // the higher one counts
	Seq     uint64 `json:"seq"`
	Bytes   int    `json:"bytes"`
	Counts  bool   `json:"counts"`
	Problem string `json:"problem,omitempty"`
}

// WALReport is one segment of the wal.
type WALReport struct {
	Name    string `json:"name"`
	State   string `json:"state"` // idle, open or damaged
	BaseSeq uint64 `json:"baseSeq"`
	LastSeq uint64 `json:"lastSeq"`
	Records int    `json:"records"`
	Used    int64  `json:"used"` // bytes
	Size    int64  `json:"size"`
	// why the records end where they do, or what is wrong with the header
	End string `json:"end,omitempty"`
}

// FileReport is one file of the directory.
type FileReport struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	OnDisk int64  `json:"onDisk"` // bytes; a sparse file has less than its length
}

// Inspect reads what there is to know about a state without opening it: it locks nothing, maps
// nothing and changes nothing, and permission to read is enough. The values are those of the last
// commit, also when the state is in use.
//
// With an error the report holds what could be read, or is nil. The error wraps errs.ErrNotExist or
// errs.ErrCorrupt, or is one of reading.
func Inspect(dir string) (*Report, error) {
	dir = filepath.Clean(dir)
	if err := statedir.MustExist(dir); err != nil {
		return nil, err
	}
	r := &Report{Dir: dir}
	var err error
	if r.Files, err = listFiles(dir); err != nil {
		return nil, err
	}
	use, err := statedir.Use(dir, statedir.Boot())
	if err != nil {
		return nil, err
	}
	r.InUse, r.Owner, r.last = use.InUse, use.Owner, use.Last
	view, err := r.look()
	if err != nil {
		return r, err
	}
	r.fill(view)
	return r, nil
}

func listFiles(dir string) ([]FileReport, error) {
	list, err := statedir.List(dir)
	var files []FileReport
	for _, f := range list {
		files = append(files, FileReport(f))
	}
	return files, err
}

// look reads the small state until no checkpoint has come in between.
func (r *Report) look() (*engine.View, error) {
	const attempts = 50
	for i := 0; ; i++ {
		v, err := engine.Read(vfs.OS, r.Dir, nil)
		steady := err == nil && v.Problem() == nil
		if steady && r.InUse {
			after, err := engine.Read(vfs.OS, r.Dir, nil)
			steady = err == nil && after.Slot.Seq == v.Slot.Seq
		}
		if steady || !r.InUse || i == attempts {
			return v, err
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *Report) fill(v *engine.View) {
	r.Mode = v.Sidecar.Header.Mode.String()
	r.Module = hex.EncodeToString(v.Sidecar.Header.Module[:])
	r.ModuleSize = int64(len(v.Module))
	r.Seq, r.CheckpointSeq = v.State.Seq, v.Slot.Seq
	if v.Sidecar.Header.Mode == engine.Continuous {
		r.Event, r.InEvent, r.Clean = v.Sidecar.EventSeq, v.Sidecar.InEvent, v.Sidecar.Header.Clean
	}
	switch {
	case v.Problem() != nil:
		r.Problem = v.Problem().Error()
	case r.InUse: // inside an event, perhaps, which is no problem then
	default:
		if err := engine.CheckWhole(v.Sidecar, r.last); err != nil {
			r.Problem = err.Error()
		}
	}
	for i, s := range v.Sidecar.Slots {
		r.Slots[i] = SlotReport{Write: s.Write, Seq: s.Seq, Bytes: s.Length,
			Counts: i == v.Sidecar.Newest}
		if s.Err != nil {
			r.Slots[i].Problem = s.Err.Error()
		}
	}
	if v.WAL != nil {
		for i, s := range v.WAL.Report() {
			r.WAL = append(r.WAL, WALReport{Name: statedir.WALNames[i], State: s.Header.String(),
				BaseSeq: s.BaseSeq,
				LastSeq: s.LastSeq, Records: s.Records, Used: s.EndOffset, Size: s.FileSize,
				End: s.Reason + s.HeaderProblem})
		}
	}
	r.fillState(v)
}

func (r *Report) fillState(v *engine.View) {
	r.Globals, r.Tables, r.Segments = []GlobalReport{}, []TableReport{}, []SegmentReport{}
	for i, g := range v.State.Globals {
		x := GlobalReport{Index: uint32(i), Type: rewriter.ValType(g.Type).String(), Lo: g.Lo,
			Hi: g.Hi}
		if v.Fits {
			x.Index, x.Name = v.Info.Globals[i].Index, v.Info.Globals[i].Name
		}
		r.Globals = append(r.Globals, x)
	}
	for i, t := range v.State.Tables {
		x := TableReport{Index: uint32(i), Changed: len(t) > 0, Entries: t}
		if v.Fits {
			x.Index, x.Type = v.Info.Tables[i].Index, v.Info.Tables[i].Type.String()
		}
		r.Tables = append(r.Tables, x)
	}
	for i, d := range v.State.Dropped {
		x := SegmentReport{Index: uint32(i), Dropped: d}
		if v.Fits {
			x.Index, x.Kind = v.Info.Segments[i].Index, v.Info.Segments[i].Kind.String()
		}
		r.Segments = append(r.Segments, x)
	}
	r.MetaBytes = len(v.State.Meta)
	tracker, why := engine.AutoChoice(v.State, v.Sidecar.Header.Mode == engine.Continuous)
	r.Tracker, r.TrackerReason = tracker.String(), why
	if n := v.State.MemoryPages; n > 0 || v.Info.Memory != nil {
		r.Memory = &MemoryReport{WasmPages: n, Bytes: uint64(n) * wasmPageSize}
		if v.Info.Memory != nil {
			r.Memory.MaxPages = v.MaxPages()
		}
	}
}
