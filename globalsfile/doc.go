// Package globalsfile keeps the small state of an instance, everything but its linear memory, in
// one mapped and preallocated file: globals, tables, dropped-segment flags, the size of the memory,
// the user's bytes, and a header that says whose state it is.
//
//	offset  bytes
//	     0    128  header, copy 0      (header.go)
//	  4096    128  header, copy 1
//	  4608   3584  event area          (event.go)
//	  8192      C  slot 0              (slot.go)
//	8192+C      C  slot 1
//
// All integers are little endian. C, the capacity of a slot, is 4096 times a power of two, the
// same for both slots and constant for the life of a file; a file whose length is not 8192+2C is
// refused.
//
// Parts that are written in turn, the other one being what counts meanwhile, share no 4 KiB page:
// whatever happens to a page while it is written, the other one stays as it is. The event area has
// no second copy, because its loss is a kill inside an event. So it can share a page with copy 1 of
// the header, which is written when the events' stores are at rest, and never together with copy 0.
//
// # What is promised
//
// A process killed at any instant leaves the newest state whose write had ended, or the one that
// was being written, whole: [File.WriteSlot] fills the slot that holds the older state, its last
// checksum last. The same holds when power fails, if the caller calls [File.Sync] between two
// slot writes. Without that, both slots may be half on the disk; continuous mode works so and
// finds out by the header's Clean flag.
//
// No content and no length of a file makes this package panic, read past the file's end, or
// allocate more than the file has. Damage is ErrCorrupt, or the report says which copy it hit
// while the other one serves. What CheckFits accepts can be written, and what was written can be
// opened.
//
// # Continuous mode
//
// The guest's stores go to the memory file's page cache at once, so the sidecar must tell at the
// next open whether memory and globals belong together. The protocol:
//
//	event:  if the header says clean: SetClean(false, boot)
//	        BeginEvent(n); the guest runs; StoreGlobals, or WriteSlot with Seq n; EndEvent(n).
//	        If nothing changed that a slot holds, neither is needed: Event then has the
//	        number of the last event, and the slot a lower one
//	flush:  sync the memory file; WriteSlot; Sync; SetClean(true, boot)
//
// [Report.Check] is the other end of it. On the same boot of the machine the page cache has
// survived and the event area decides. After another boot only a clean state can be trusted.
package globalsfile
