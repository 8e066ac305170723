package lab

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// FillWAL makes events that write to the same pages, each with a new value, until records of
// size bytes are in the active segment of the wal. It returns the number of events. The
// segment must be that large and empty.
func (s *State) FillWAL(size int64, pages int) (events int, err error) {
	touch := s.Event("touch")
	stack := make([]uint64, 4)
	record := int64(0)
	for used := int64(0); used+record <= size; events++ {
		stack[0], stack[1], stack[2], stack[3] = 0, 1, uint64(pages), uint64(events+2)
		if err := touch(stack); err != nil {
			return events, err
		}
		now := s.Stats().WALUsed
		record, used = now-used, now
	}
	return events, nil
}

// CopyFiles copies the state directory of an open state between two events: what a process that
// is killed now leaves behind. The copy is on the disk, except for the wal if so asked: a kill
// right after a commit leaves the last records in the page cache.
func (s *State) CopyFiles(to string, syncWAL bool) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		sync := syncWAL || !strings.HasPrefix(e.Name(), "wal")
		if err := copyFile(filepath.Join(s.dir, e.Name()), filepath.Join(to, e.Name()),
			sync); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string, sync bool) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// Through a buffer: the kernel's own ways to copy may share blocks between the two files.
	type writer struct{ io.Writer }
	type reader struct{ io.Reader }
	if _, err := io.CopyBuffer(writer{out}, reader{in}, make([]byte, MiB)); err != nil || !sync {
		return err
	}
	return out.Sync()
}
