package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

const (
	// PageSize is the unit of tracking, in bytes.
	PageSize = 4096
	// MiB is 1,048,576 bytes.
	MiB = 1 << 20

	wasmPageSize   = 65536
	wasmPagesInMiB = MiB / wasmPageSize
	pagesInMiB     = MiB / PageSize
)

var ctx = context.Background()

// Module reads testdata/NAME.wasm of the checkout that the working directory lies in.
func Module(name string) ([]byte, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for {
		wasm, err := os.ReadFile(filepath.Join(dir, "testdata", name+".wasm"))
		if err == nil {
			return wasm, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return nil, fmt.Errorf("guest %s: no testdata above the working directory: run this "+
				"inside a checkout", name)
		}
		dir = up
	}
}

// Contestant is one way to run the guest and to keep its state, or not to.
type Contestant interface {
	// Event returns a function that makes one event of a call to an export of the guest. The
	// stack holds the parameters.
	Event(export string) func(stack []uint64) error
	// Setup calls an export without any promise to keep what it does.
	Setup(export string, params ...uint64) error
	// Settle is called when the memory has been filled: what has been written is in the files
	// afterwards, if there are any, and no page is in another state than long after its use.
	Settle() error
	Close() error
}

// Prepare gives the guest a memory of mib MiB. If touched, see the package comment.
func Prepare(c Contestant, mib int, touched bool) error {
	if err := c.Setup("grow", uint64((mib*wasmPagesInMiB)-1)); err != nil {
		return err
	}
	if !touched {
		return c.Settle()
	}
	const batch = 4 * pagesInMiB
	for page, pages := 0, mib*pagesInMiB; page < pages; page += batch {
		if err := c.Setup("touch", uint64(page), 1, uint64(min(batch, pages-page)), 1); err != nil {
			return err
		}
	}
	if err := c.Settle(); err != nil {
		return err
	}
	for page := range mib * pagesInMiB {
		if err := c.Setup("load", uint64(page*PageSize)); err != nil {
			return err
		}
	}
	return nil
}
