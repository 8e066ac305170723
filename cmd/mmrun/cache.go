package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
)

// compileCache is the directory of one module's compiled code:
//
//	CACHE/SHA256-OF-THE-MODULE/                 with -debug behind it under --debug-info
//	    wazero-VERSION-ARCH-OS/KEY    compiled code, written by wazero
//	    sums                          a line for each: CRC-32C, name
//
// The checksums are ours: wazero's own cover the machine code but not the offsets of the functions
// in it, and a wrong offset is a jump to anywhere. So a file is given to wazero only when it is,
// byte for byte, what was there after it had been compiled; any other is removed and compiled anew.
type compileCache struct {
	dir   string
	cache wazero.CompilationCache
}

const sumsName = "sums"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cacheDir is where the caches of all modules are.
func (a *app) cacheDir() (string, error) {
	if a.cache != "" {
		return a.cache, nil
	}
	user, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(user, "mmrun"), nil
}

// openCache returns nil if there is to be no cache, or can be none.
func (a *app) openCache(wasm []byte) *compileCache {
	if a.noCache || a.cacheOff {
		return nil
	}
	root, err := a.cacheDir()
	if err != nil {
		a.cacheWarning(err)
		return nil
	}
	sum := sha256.Sum256(wasm)
	name := hex.EncodeToString(sum[:])
	if a.lines {
		name += "-debug" // wazero compiles to other code, under the same key
	}
	c := &compileCache{dir: filepath.Join(root, name)}
	removed, err := c.sweep()
	for _, name := range removed {
		a.message("compile cache: %s is damaged: removed, the module is compiled anew",
			filepath.Join(c.dir, name))
	}
	if err == nil {
		c.cache, err = wazero.NewCompilationCacheWithDir(c.dir)
	}
	if err != nil {
		a.cacheWarning(err)
		return nil
	}
	return c
}

func (a *app) cacheWarning(err error) {
	a.message("compile cache: %v (going on without; see --cache and --no-cache)", err)
}

// sweep removes every file that is not as the sums say. Those that the sums do not know are
// silently removed: their writer was killed before it had noted them.
func (c *compileCache) sweep() (damaged []string, err error) {
	noted := c.noted()
	found, err := c.files()
	if err != nil {
		return nil, err
	}
	for name, sum := range found {
		want, known := noted[name]
		if known && sum == want {
			continue
		}
		if err := os.Remove(filepath.Join(c.dir, name)); err != nil &&
			!errors.Is(err, fs.ErrNotExist) {
			return damaged, err
		}
		if known {
			damaged = append(damaged, name)
		}
	}
	return damaged, nil
}

// note writes the sums if files have come or gone.
func (c *compileCache) note() error {
	found, err := c.files()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	for name, sum := range found {
		fmt.Fprintf(&b, "%08x %s\n", sum, name)
	}
	noted := c.noted()
	same := len(noted) == len(found)
	for name := range found {
		_, known := noted[name]
		same = same && known
	}
	if same {
		return nil
	}
	f, err := os.CreateTemp(c.dir, sumsName+"-*"+temporarySuffix)
	if err != nil {
		return err
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(c.dir, sumsName))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// noted reads the sums. A damaged line notes nothing, so that its file is compiled anew.
func (c *compileCache) noted() map[string]uint32 {
	noted := make(map[string]uint32)
	b, err := os.ReadFile(filepath.Join(c.dir, sumsName))
	if err != nil {
		return noted
	}
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		var sum uint32
		var name string
		if n, _ := fmt.Sscanf(lines.Text(), "%08x %s", &sum, &name); n == 2 {
			noted[name] = sum
		}
	}
	return noted
}

const (
	temporarySuffix = ".tmp"
	// abandonedAge is when a temporary file is taken for one whose writer has died.
	abandonedAge = time.Hour
)

// files returns the checksums of all files but the sums and what others are writing just now.
func (c *compileCache) files() (map[string]uint32, error) {
	found := make(map[string]uint32)
	err := filepath.WalkDir(c.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(c.dir, path)
		if err != nil || name == sumsName {
			return err
		}
		if strings.HasSuffix(name, temporarySuffix) {
			if info, err := d.Info(); err != nil || time.Since(info.ModTime()) < abandonedAge {
				return nil
			}
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		found[filepath.ToSlash(name)] = crc32.Checksum(b, castagnoli)
		return err
	})
	return found, err
}
