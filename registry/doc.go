// Package registry holds many named instances of one or several modules under one data directory.
//
// An instance is opened when it is first asked for, and closed, with a checkpoint, when nobody has
// asked for long or when too many are open. Events of one name run one at a time in the order in
// which they came; those of different names run at once. Whatever waits is bounded: where there is
// no room the answer is [ErrBusy].
//
//	DATA/modules/HASH.wasm        each module once; states have hard links to it
//	DATA/instances/HHH/NAME       a state directory; HHH is the begin of the name's SHA-256
//	DATA/instances/HHH/NAME.name  the name, if it is too long to stand in the directory
//	DATA/trash                    what is being deleted
//
// Names are any UTF-8 of up to [MaxName] bytes. On disk all but lower-case letters, digits, and
// "-_." are written as %XX, so that no name is a path, and none is another one on a file system
// that takes capitals and small letters for the same.
//
// A data directory belongs to one Registry at a time: nothing but the lock of each state keeps a
// second one from it.
package registry
