package statedir

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/mmrun/mmrun/internal/errs"
	"github.com/mmrun/mmrun/vfs"
)

// MaxModule is the length of the longest module that is kept in a state: 1 GiB.
const MaxModule = 1 << 30

// ReadModule reads the module that is kept in a state. If it has not the SHA-256 wanted, the error
// wraps errs.ErrCorrupt. Memory is not taken on the strength of a file's length: a long one has to
// have the right checksum first.
func ReadModule(fsys vfs.FS, dir string, want [sha256.Size]byte) ([]byte, error) {
	const long = 64 << 20
	path := filepath.Join(dir, ModuleName)
	if size := Size(dir, ModuleName); size > long && size <= MaxModule {
		got, err := sum(fsys, path)
		if err == nil {
			err = compare(got, want)
		}
		if err != nil {
			return nil, err
		}
	}
	wasm, err := vfs.ReadAll(fsys, path, MaxModule)
	if err != nil {
		return nil, err
	}
	return wasm, compare(sha256.Sum256(wasm), want)
}

func compare(got, want [sha256.Size]byte) error {
	if got == want {
		return nil
	}
	return errs.As(errs.ErrCorrupt,
		fmt.Errorf("%s has SHA-256 %x, the state was created by %x", ModuleName, got, want))
}

// sum reads a file in small pieces.
func sum(fsys vfs.FS, path string) (result [sha256.Size]byte, err error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return result, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, math.MaxInt64)); err != nil {
		return result, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
