package wal_test

import (
	"fmt"
	"log"
	"os"

	"github.com/mmrun/mmrun/vfs"
	"github.com/mmrun/mmrun/wal"
)

func Example() {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	l, err := wal.Create(vfs.OS, dir, 1<<20, 0)
	if err != nil {
		log.Fatal(err)
	}
	memory := []byte("a memory that changed here and there")
	err = l.Append(&wal.Commit{
		Seq: 1, WasmPages: 1, Small: []byte("globals"),
		Memory: memory, Ranges: []wal.Range{{Offset: 2, Len: 6}, {Offset: 22, Len: 4}},
	})
	if err == nil {
		err = l.Sync()
	}
	if err != nil {
		log.Fatal(err)
	}
	l.Close()

	// The next process finds it.
	l, err = wal.Open(vfs.OS, dir, 1<<20)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	found, err := l.Replay(0, func(r wal.Record) error {
		fmt.Printf("commit %d: %s\n", r.Seq, r.Small)
		for offset, data := range r.Ranges() {
			fmt.Printf("  %d: %s\n", offset, data)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Here the caller makes durable what it was given.
	if err := l.Reset(found.LastSeq); err != nil {
		log.Fatal(err)
	}
	// Output:
	// commit 1: globals
	//   2: memory
	//   22: here
}

func ExampleLog_Sealed() {
	dir, err := os.MkdirTemp("", "wal")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := wal.Create(vfs.OS, dir, wal.MinSize, 0)
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	for seq := uint64(1); seq <= 100; seq++ {
		c := &wal.Commit{Seq: seq, Small: make([]byte, 100)}
		if wal.RecordSize(c) > l.Free() {
			if err := l.Switch(); err != nil {
				log.Fatal(err)
			}
			sealed := l.Sealed() // from here on another goroutine may go on
			if err := sealed.Sync(); err != nil {
				log.Fatal(err)
			}
			// Here the caller folds: sealed.Replay into its own files, which it then syncs.
			fmt.Printf("folded commits %d to %d\n", sealed.BaseSeq()+1, sealed.LastSeq())
			if err := sealed.Release(); err != nil {
				log.Fatal(err)
			}
		}
		if err := l.Append(c); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// folded commits 1 to 30
	// folded commits 31 to 60
	// folded commits 61 to 90
}
