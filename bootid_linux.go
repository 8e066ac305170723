package mmrun

import (
	"crypto/sha256"
	"os"
	"sync"
)

// bootID identifies the time since the machine was started. As long as it is the same, what was
// in the page cache still is. It is read once: no process outlives a boot.
var bootID = sync.OnceValue(func() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return id
	}
	sum := sha256.Sum256(b)
	copy(id[:], sum[:])
	return id
})
