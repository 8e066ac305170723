package mmrun

import "context"

// MarkWritten says that the host function that ctx was given to has written, or is about to write, n
// bytes of the guest's memory at ptr. It matters with the tracker [Barrier] alone, and for writes that
// do not go through [Tx.Memory] or [Tx.WriteBytes], which tell by themselves. Outside of an event it
// does nothing.
func MarkWritten(ctx context.Context, ptr, n uint32) {
	tx := TxFrom(ctx)
	if tx == nil || tx.usable() != nil {
		return
	}
	if mem := tx.in.store.Memory(); mem != nil {
		mem.MarkWritten(ptr, n)
	}
}
