package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/vfs"
)

// View is what [Inspect] read: a wal that cannot be written to.
type View struct{ j *Log }

// Inspect reads the wal in dir without locking, mapping or changing it; permission to read
// is enough. Like [Open] it accepts files of any content and length. If another process is
// appending meanwhile, the end may be seen as torn or damaged.
func Inspect(fsys vfs.FS, dir string) (*View, error) {
	j := &Log{dir: dir}
	for i, name := range []string{"wal.0", "wal.1"} {
		s, err := readSegment(fsys, filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("wal: %w", err)
		}
		j.segments[i] = s
		if err := s.scan(); err != nil {
			return nil, err
		}
	}
	return &View{j}, nil
}

// readSegment reads what openSegment would map, of an idle segment the header alone.
func readSegment(fsys vfs.FS, path string) (s *segment, err error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s = &segment{file: f} // for its name
	if s.fileSize, err = f.Size(); err != nil {
		return nil, err
	}
	length := min(s.fileSize, maxSize) &^ 7
	if length < headerSize {
		return s, nil
	}
	s.mapping = make([]byte, headerSize)
	if _, err := f.ReadAt(s.mapping, 0); err != nil {
		return nil, err
	}
	h, _, state, _, err := decodeHeader(s.mapping)
	if err != nil || state != HeaderOpen {
		return s, nil // scan says what is wrong
	}
	length = min(length, max(h.size&^7, headerSize))
	s.mapping = append(s.mapping, make([]byte, length-headerSize)...)
	_, err = f.ReadAt(s.mapping[headerSize:], headerSize)
	return s, err
}

// Report is [Log.Report].
func (v *View) Report() [2]SegmentReport { return v.j.Report() }

// Replay is [Log.Replay].
func (v *View) Replay(fromSeq uint64, fn func(Record) error) (Recovery, error) {
	return v.j.Replay(fromSeq, fn)
}
