package journal

// SyncFiles makes durable what [Journal.Replay] gives, for the time between Open and Reset.
// After a kill the records may be in the page cache only, and no other file may change on their
// account before they are on the disk.
func (j *Journal) SyncFiles() error {
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	for _, s := range j.segments {
		if err := s.file.Sync(); err != nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.fail(err)
		}
	}
	return nil
}
