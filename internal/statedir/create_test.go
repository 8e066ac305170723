package statedir

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mmrun/mmrun/vfs/faultfs"
)

// TestDirectoryIsBuiltWhole holds that Create itself makes the names in a directory durable before
// the directory gets its own.
func TestDirectoryIsBuiltWhole(t *testing.T) {
	root := t.TempDir()
	rec, err := faultfs.NewRecorder(root)
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	rnd, images := rand.New(rand.NewPCG(1, 0)), 0
	rec.Before = func(*faultfs.Op) {
		for _, im := range rec.Cuts(rnd, 5) {
			images++
			_, whole := im.Files[filepath.Join("s", ModuleName)]
			if slices.Contains(im.Dirs, "s") && !whole {
				t.Errorf("%s: the directory is there, and what was put into it is not", im.Plan)
			}
		}
	}
	lock, err := Create(rec.FS(), filepath.Join(root, "s"), BootID{}, func(building string) error {
		return WriteFile(rec.FS(), filepath.Join(building, ModuleName), []byte("module"))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	rec.Point()
	t.Logf("%d images", images)
}
