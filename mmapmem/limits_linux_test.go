package mmapmem

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/internal/testkit/scratch"
)

// child runs a test of this package alone in a process of its own, since what it does to the
// process cannot be undone.
func child(t *testing.T, name string) bool {
	if os.Getenv("MMAPMEM_CHILD") == name {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), "MMAPMEM_CHILD="+name)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// A process that is near its limit of mappings gets an error that names the limit, and goes on.
// What is open works at the limit, and with room again more can be opened.
func TestMappingLimitIsAnError(t *testing.T) {
	if !child(t, "TestMappingLimitIsAnError") {
		return
	}
	most := number("/proc/sys/vm/max_map_count")
	if most == 0 || most > 1<<20 {
		t.Skipf("the limit is %d", most)
	}
	_, open := openPrivate(t, 64)
	if open.Allocate(0, 0).Reallocate(64*WasmPageSize) == nil {
		t.Fatal(open.GrowError())
	}
	probing.left = 0
	fill := most - mappings() - spare/2
	area, err := unix.Mmap(-1, 0, fill*PageSize, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	for at := PageSize; at < len(area); at += 2 * PageSize {
		if err := unix.Mprotect(area[at:at+PageSize], unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
	}
	f := scratch.File(t, t.TempDir(), "memory")
	for range 3 {
		_, err = Open(f, Private, 1)
		if !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), "vm.max_map_count") {
			t.Errorf("%v", err)
		}
	}
	t.Log(err)
	// The very last mapping is taken: whatever the open memory does needs none.
	left := fillUp(t)
	for seq := uint64(1); seq < 20; seq++ {
		for p := range uint32(200) {
			open.Bytes()[(p*5+uint32(seq))%1024*PageSize] = byte(seq)
		}
		if seq%3 == 0 {
			err = open.Rollback(open.Size())
		} else {
			var pending Pending
			open.policy.wasted = 1 << 30
			if pending, err = open.Changes(); err == nil {
				err = pending.Keep(seq, false)
			}
			for _, r := range open.ranges {
				_, _ = open.file.WriteAt(open.live[r.Offset:][:r.Len], int64(r.Offset))
			}
			open.policy.idle = 0
			open.InFile(seq)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range left {
		if err := unix.Munmap(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Munmap(area); err != nil {
		t.Fatal(err)
	}
	m, err := Open(f, Private, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

// fillUp takes all mappings but a few that Go's runtime may need meanwhile.
func fillUp(t *testing.T) (areas [][]byte) {
	areas = make([][]byte, 0, 1<<16)
	for prot := unix.PROT_READ; ; prot ^= unix.PROT_WRITE {
		m, err := unix.Mmap(-1, 0, PageSize, prot, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == unix.ENOMEM {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		areas = append(areas, m)
	}
	for _, m := range areas[len(areas)-4:] {
		if err := unix.Munmap(m); err != nil {
			t.Fatal(err)
		}
	}
	return areas[:len(areas)-4]
}

// The limit of address space is named, too.
func TestAddressSpaceLimitIsAnError(t *testing.T) {
	if !child(t, "TestAddressSpaceLimitIsAnError") {
		return
	}
	const limit = 8 << 30
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 4 {
		var m *Memory
		if m, err = Open(scratch.File(t, t.TempDir(), "memory"), Private,
			MaxWasmPages); err != nil {
			break
		}
		defer m.Close()
	}
	const want = "limited to 8589934592 bytes"
	if !errors.Is(err, syscall.ENOMEM) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v", err)
	}
	t.Log(err)
}

// A memory that is open and has been written to holds its file and no other descriptor, and two
// mappings: the process keeps what all of them need.
func TestMemoriesShareDescriptors(t *testing.T) {
	if !child(t, "TestMemoriesShareDescriptors") {
		return
	}
	descriptors := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		return len(entries)
	}
	use := func() {
		_, m := openPrivate(t, 1)
		m.Allocate(0, 0).Reallocate(WasmPageSize)
		m.policy.wasted = 1 << 30 // so that it guards
		m.Bytes()[5000] = 1
		pending, err := m.Changes()
		if err == nil {
			err = pending.Keep(1, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	use()
	const memories = 50
	held, mapped := descriptors(), mappings()
	for range memories {
		use()
	}
	if n := descriptors() - held; n != memories {
		t.Errorf("%d descriptors for %d memories, want one each, that of the file", n, memories)
	}
	if n := mappings() - mapped; n > 2*memories+20 {
		t.Errorf("%d mappings for %d memories, want two each", n, memories)
	}
}
