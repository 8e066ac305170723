package lab

import (
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Usage is what the process holds in memory, in bytes.
type Usage struct {
	Anon uint64 // resident private pages: Go's heap and the pages of guests that were written
	Heap uint64 // in use on Go's heap
}

// CurrentUsage reads it.
func CurrentUsage() (Usage, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return Usage{}, err
	}
	_, rest, ok := strings.Cut(string(status), "RssAnon:")
	if !ok {
		return Usage{}, fmt.Errorf("/proc/self/status: no RssAnon")
	}
	var kib uint64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return Usage{}, fmt.Errorf("/proc/self/status: RssAnon: %w", err)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Usage{Anon: kib << 10, Heap: m.HeapInuse}, nil
}
