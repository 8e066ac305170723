// Package peers holds what a user could take instead of mmrun, each behind the same interface and
// set up as its own documentation advises: plain wazero, copies of the whole memory, databases,
// and a bare file, which is the floor.
//
// The logical work is the same for all: a counter, and a table of 16-byte keys and 100-byte values.
package peers

import (
	"context"
	"errors"
	"fmt"
)

var ctx = context.Background()

// ErrNoKey: the table has no such key.
var ErrNoKey = errors.New("no such key")

// Store keeps counters and a table. It is used by one goroutine at a time. What a method has done
// is as safe as its peer promises when the method returns.
type Store interface {
	// Increment adds one to a counter, as one commit. A guest has one counter, whatever its number.
	Increment(counter uint32) error
	Count(counter uint32) (uint64, error)
	// Load puts the keys 0 to n-1 in version 0, in commits of any size, and leaves the store as it
	// is long afterwards: compacted, checkpointed, on the disk.
	Load(n uint32) error
	// Put replaces one value, as one commit.
	Put(e *Entry) error
	// PutAll replaces values as one commit.
	PutAll(batch []Entry) error
	// Get reads a value, or fails with ErrNoKey.
	Get(k *Key, v *Value) error
	Close() error
}

// Safety is what is left of an acknowledged commit.
type Safety int

const (
	// Nothing: it may be gone when the process is killed.
	Nothing Safety = iota
	// Between: it survives kill -9 between two events; one inside an event is detected and refused.
	Between
	// Kill: it survives kill -9, and not a power cut.
	Kill
	// Power: it survives a power cut.
	Power
)

func (s Safety) String() string {
	return [...]string{"nothing", "kill -9 between events", "kill -9", "power cut"}[s]
}

// Options of a Store.
type Options struct {
	Dir      string  // exists and is the store's own
	Keys     uint32  // about as many will be loaded; 0: only the counter is used
	Ordered  bool    // the guests keep a B-tree instead of a hash table
	CacheDir string  // where wazero keeps compiled code; empty: nowhere
	Shared   *Shared // what many guests of one process have in common; nil: each has its own
}

// Peer is one contestant under one setting.
type Peer struct {
	Name     string
	Safety   Safety
	Settings string // what was set, and why, for the report
	Open     func(Options) (Store, error)
	// Missing says why the peer cannot run on this machine; nil: it can.
	Missing func() error
	// Guest: the store is one guest with one counter.
	Guest bool
	// Slow: an operation takes milliseconds; it gets fewer of them.
	Slow bool
	// CopyBased: the cost follows the size of the memory.
	CopyBased bool
	// Floor: the bare work of the operating system, not something to choose.
	Floor bool
}

// Why is the reason that the peer cannot run here, or nil.
func (p Peer) Why() error {
	if p.Missing == nil {
		return nil
	}
	return p.Missing()
}

// All are the contestants in the order of the report.
func All() []Peer {
	var all []Peer
	for _, group := range [][]Peer{
		mmrunPeers(), plainPeers(), copyPeers(), wasmtimePeers(), sqlitePeers(), bboltPeers(),
		pebblePeers(), badgerPeers(), redisPeers(), criuPeers(), filePeers(),
	} {
		all = append(all, group...)
	}
	return all
}

// ByName finds a contestant.
func ByName(name string) (Peer, error) {
	for _, p := range All() {
		if p.Name == name {
			return p, nil
		}
	}
	return Peer{}, fmt.Errorf("no contestant %q", name)
}
