package wal

import (
	"os"

	"github.com/mmrun/mmrun/vfs"
)

// SyncFiles makes durable what [Log.Replay] gives, for the time between Open and Reset.
// After a kill the records may be in the page cache only, and no other file may change on their
// account before they are on the disk.
//
// The records are written over themselves before: after a sync that failed the kernel takes pages
// for clean that are not on the disk, and would sync nothing.
func (l *Log) SyncFiles() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	for _, s := range l.segments {
		err := s.open(os.O_RDWR, func(f vfs.File) error {
			if s.found.state == HeaderOpen {
				if err := vfs.Rewrite(f, s.found.end.offset); err != nil {
					return err
				}
			}
			return f.Sync()
		})
		if err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.fail(err)
		}
	}
	return nil
}
