package wal

// SyncFiles makes durable what [Log.Replay] gives, for the time between Open and Reset.
// After a kill the records may be in the page cache only, and no other file may change on their
// account before they are on the disk.
//
// The records are written over themselves before: after a sync that failed the kernel takes pages for
// clean that are not on the disk, and would sync nothing.
func (j *Log) SyncFiles() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	for _, s := range j.segments {
		err := error(nil)
		if s.found.state == HeaderOpen {
			err = s.writeAgain(s.found.end.offset)
		}
		if err == nil {
			err = s.file.Sync()
		}
		if err != nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.fail(err)
		}
	}
	return nil
}

// writeAgain writes the file up to end over itself.
func (s *segment) writeAgain(end int64) error {
	buf := make([]byte, 64<<10)
	for at := int64(0); at < end; {
		n := copy(buf, s.mapping[at:end])
		if _, err := s.file.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}
