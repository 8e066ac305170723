package wal

// LastSeq is the sequence number of the last commit appended, or the base of the last Reset;
// 0 between Open and Reset.
func (l *Log) LastSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active == nil {
		return 0
	}
	return l.active.last
}

// Size is the full size of a segment file, in bytes: up to which it grows by itself.
func (l *Log) Size() int64 { return l.size }

// Used is the number of bytes that records take in the active segment.
func (l *Log) Used() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active == nil || !l.active.begun {
		return 0
	}
	return l.active.tail - headerSize
}

// Free is the size of the largest record that fits into the active segment as it is.
func (l *Log) Free() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.active == nil || l.closed {
		return 0
	}
	return l.active.free()
}

// Largest is the size of the largest record that fits into a segment of full size. Reserve grows
// one beyond that for a larger record, which then is alone in it.
func (l *Log) Largest() int64 { return l.size - headerSize }

// Written is the number of bytes of all records appended since Create or Open.
func (l *Log) Written() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// Faults counts the appends that have stored to pages which were not known to be ready for it.
// Each may have been page faults; the others have been none, but where the kernel has written
// pages back by itself. It is called by the goroutine that appends.
func (l *Log) Faults() uint64 { return l.segments[0].warmth.faults + l.segments[1].warmth.faults }
