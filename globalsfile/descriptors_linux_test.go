package globalsfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mmrun/mmrun/vfs"
)

// An instance that does nothing holds no descriptor for what it has mapped: also after a growth,
// and when it has been opened anew.
func TestOpenFileHoldsNoDescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "globals")
	held := func() (n int) {
		for _, e := range must[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")) {
			to, err := os.Readlink("/proc/self/fd/" + e.Name())
			if err == nil && strings.Contains(to, path) {
				n++
			}
		}
		return n
	}
	f := must[*File](t)(Create(vfs.OS, path, Header{Mode: Atomic}, &State{Seq: 1}))
	if n := held(); n != 0 {
		t.Errorf("%d after Create", n)
	}
	if err := f.WriteSlot(&State{Seq: 2, Meta: make([]byte, 100_000)}); err != nil {
		t.Fatal(err)
	}
	if n := held(); n != 0 {
		t.Errorf("%d after a growth", n)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	f = must[*File](t)(Open(vfs.OS, path))
	defer f.Close()
	if n := held(); n != 0 {
		t.Errorf("%d after Open", n)
	}
}
