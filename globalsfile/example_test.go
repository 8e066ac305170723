package globalsfile_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/globalsfile"
	"github.com/mmrun/mmrun/vfs"
)

// A process dies between two events, another one goes on.
func Example() {
	dir, err := os.MkdirTemp("", "globalsfile")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "globals")
	boot := [16]byte{1} // /proc/sys/kernel/random/boot_id

	f, err := globalsfile.Create(vfs.OS, path, globalsfile.Header{
		Module: sha256.Sum256([]byte("the module")),
		Mode:   globalsfile.Continuous,
		BootID: boot,
	}, &globalsfile.State{Globals: []globalsfile.Value{{Type: 0x7f, Lo: 41}}})
	if err != nil {
		panic(err)
	}
	f.BeginEvent(1)
	f.StoreGlobals(0, []globalsfile.Value{{Type: 0x7f, Lo: 42}})
	f.EndEvent(1)

	s, report, err := globalsfile.Inspect(vfs.OS, path)
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Seq, s.Globals[0].Lo, report.Check(boot))

	f.BeginEvent(2)
	_, report, err = globalsfile.Inspect(vfs.OS, path)
	if err != nil {
		panic(err)
	}
	fmt.Println(errors.Is(report.Check(boot), globalsfile.ErrTorn))
	f.Close()
	// Output:
	// 1 42 <nil>
	// true
}
