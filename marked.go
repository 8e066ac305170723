package mmrun

import "context"

// MarkWritten says that the host function that ctx was given to has written, or is about to write, n
// bytes of the guest's memory at ptr. One that calls it says with that all that it writes, in as many
// calls as it takes; n may be 0. It matters with the tracker [Barrier] alone: an event in which a host
// function was called that does not tell has all of its memory compared. Outside of an event it does
// nothing.
func MarkWritten(ctx context.Context, ptr, n uint32) {
	tx := TxFrom(ctx)
	if tx == nil || tx.usable() != nil {
		return
	}
	if mem := tx.in.store.Memory(); mem != nil {
		mem.MarkWritten(ptr, n)
		mem.HostTells()
	}
}
