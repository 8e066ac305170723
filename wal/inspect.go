package wal

import "github.com/mmrun/mmrun/vfs"

// View is what [Inspect] read: a wal that cannot be written to.
type View struct{ l *Log }

// Inspect reads the wal in dir without locking, mapping or changing it; permission to read
// is enough. Like [Open] it accepts files of any content and length. If another process is
// appending meanwhile, the end may be seen as torn or damaged.
func Inspect(fsys vfs.FS, dir string) (*View, error) {
	l, err := Open(fsys, dir, MinSize)
	if err != nil {
		return nil, err
	}
	return &View{l}, nil
}

// Report is [Log.Report].
func (v *View) Report() [2]SegmentReport { return v.l.Report() }

// Replay is [Log.Replay].
func (v *View) Replay(fromSeq uint64, fn func(Record) error) (Recovery, error) {
	return v.l.Replay(fromSeq, fn)
}

// EndSeq is [Log.EndSeq].
func (v *View) EndSeq(fromSeq uint64) uint64 { return v.l.EndSeq(fromSeq) }

// FullSize is the size up to which the segments of the wal grow, in bytes; 0 if neither of them
// tells it any more.
func (v *View) FullSize() int64 {
	for _, s := range v.l.segments {
		if s.found.header.full != 0 {
			return s.found.header.full
		}
	}
	return 0
}

// SegmentReport is what was found in one file. Whether anything is missing depends on the
// state that the wal is replayed onto, and is told by [Log.Replay]: a segment that
// has been checkpointed may be half overwritten after a power cut.
type SegmentReport struct {
	Path          string
	FileSize      int64
	Header        HeaderState
	HeaderProblem string // of a damaged one

	// Of an open segment:
	Salt       uint64
	BaseSeq    uint64 // the sequence number before the first record
	LastSeq    uint64 // of the last valid record; BaseSeq if there is none
	Records    int    // valid ones
	EndOffset  int64  // behind the last valid record
	Reason     string // why the records end there
	SeenSeq    uint64 // something in the segment shows that the log had gone up to this commit
	DurableSeq uint64 // and that it had been durable up to this one
}

// Report describes both files as Open found them. It is for the time between Open and Reset.
func (l *Log) Report() [2]SegmentReport {
	l.mu.Lock()
	defer l.mu.Unlock()
	var reports [2]SegmentReport
	for i, s := range l.segments {
		f := &s.found
		reports[i] = SegmentReport{
			Path: s.path, FileSize: f.fileSize, Header: f.state, HeaderProblem: f.problem,
			Salt: f.header.salt, BaseSeq: f.header.base, LastSeq: f.end.seq, Records: f.records,
			EndOffset: f.end.offset, Reason: f.reason(), SeenSeq: f.seen, DurableSeq: f.durable,
		}
	}
	return reports
}
