package vfs

// puncher is a file that can give blocks back.
type puncher interface {
	Punch(offset, length int64) error
}

// Punch makes the bytes [offset, offset+length) of a file zeros, and gives their blocks back where
// that can be; elsewhere zeros are written. Its order with writes and syncs is that of a write.
func Punch(f File, offset, length int64) error {
	if p, ok := f.(puncher); ok {
		return p.Punch(offset, length)
	}
	return writeZeros(f, offset, length)
}

func writeZeros(f File, offset, length int64) error {
	zeros := make([]byte, min(length, rewriteChunk))
	for length > 0 {
		n, err := f.WriteAt(zeros[:min(length, int64(len(zeros)))], offset)
		if err != nil {
			return err
		}
		offset += int64(n)
		length -= int64(n)
	}
	return nil
}
