package mmapmem

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A process may have vm.max_map_count mappings, 65530 by default. At that limit not only mmap
// fails: so does what Go's runtime needs for its heap, and then it ends the process. So a memory is
// refused while there is still room for others.
const (
	// openingsPerProbe is how many memories are opened without looking, spare how much room there
	// has to be when one looks: five mappings for each of those, and the rest for everybody else.
	// A look costs a quarter of a millisecond.
	openingsPerProbe = 64
	spare            = 5*openingsPerProbe + 192
)

var probing struct {
	sync.Mutex
	left int // openings until the next look
}

// spareMappings tells whether the process can have some more mappings. It is called for each memory
// that is opened.
func spareMappings() error {
	probing.Lock()
	defer probing.Unlock()
	if probing.left > 0 {
		probing.left--
		return nil
	}
	if err := probe(spare); err != nil {
		return mapLimit(err)
	}
	probing.left = openingsPerProbe - 1
	return nil
}

// probe makes n mappings out of one, by giving every other page another protection, and unmaps
// them.
func probe(n int) error {
	area, err := unix.Mmap(-1, 0, n*PageSize, unix.PROT_NONE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	for at := PageSize; at < len(area) && err == nil; at += 2 * PageSize {
		err = unix.Mprotect(area[at:at+PageSize], unix.PROT_READ)
	}
	return errors.Join(err, unix.Munmap(area))
}

// mapLimit says which limit a mapping has met that failed with err, and what can be done.
func mapLimit(err error) error {
	if !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EAGAIN) {
		return err
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_AS, &limit) == nil && limit.Cur < 1<<46 {
		return fmt.Errorf("the address space of this process is limited to %d bytes "+
			"(raise it: ulimit -v; or let the module declare a smaller maximum of its memory): %w",
			limit.Cur, err)
	}
	most, have := number("/proc/sys/vm/max_map_count"), mappings()
	if most > 0 && have+spare >= most {
		return fmt.Errorf("this process has %d of the %d memory mappings "+
			"that the system allows it, and keeps %d free "+
			"(raise the limit: sysctl vm.max_map_count; or open fewer states in one process): %w",
			have, most, spare, err)
	}
	return fmt.Errorf("%w (the system has no room for the mapping: "+
		"see vm.overcommit_memory, vm.max_map_count, ulimit)", err)
}

func number(path string) int {
	b, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(string(bytes.TrimSpace(b)))
	return n
}

// mappings counts those of the process.
func mappings() int {
	b, _ := os.ReadFile("/proc/self/maps")
	return bytes.Count(b, []byte("\n"))
}
