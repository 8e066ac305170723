package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun/rewriter"
)

// Snapshot keeps the state by copying it: after each event the whole memory is written to
// memory.bin and all globals to globals.json, each under a temporary name that is then renamed.
// Nothing is synced. The module is the rewritten one, since private globals could not be read
// otherwise.
type Snapshot struct {
	*Plain
	dir     string
	globals map[string]api.MutableGlobal
	values  map[string]uint64
}

// NewSnapshot starts the guest anew, as NewPlain does; its snapshots go to dir.
func NewSnapshot(wasm []byte, dir, cacheDir string) (*Snapshot, error) {
	rewritten, info, err := rewriter.Rewrite(wasm, rewriter.Options{})
	if err != nil {
		return nil, err
	}
	s := &Snapshot{dir: dir, globals: make(map[string]api.MutableGlobal),
		values: make(map[string]uint64)}
	if s.Plain, err = NewPlain(rewritten, cacheDir); err != nil {
		return nil, err
	}
	for _, g := range info.Globals {
		s.globals[g.Export] = s.module.ExportedGlobal(g.Export).(api.MutableGlobal)
	}
	for _, name := range []string{info.Init, info.Start} {
		if name != "" {
			if err := s.Setup(name); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// Event calls and takes a snapshot.
func (s *Snapshot) Event(export string) func([]uint64) error {
	call := s.Plain.Event(export)
	return func(stack []uint64) error {
		if err := call(stack); err != nil {
			return err
		}
		return s.Save()
	}
}

// Save takes a snapshot.
func (s *Snapshot) Save() error {
	mem := s.module.Memory()
	image, ok := mem.Read(0, mem.Size()) // a view, not a copy
	if !ok {
		return fmt.Errorf("memory of %d bytes cannot be read", mem.Size())
	}
	if err := replace(filepath.Join(s.dir, "memory.bin"), image); err != nil {
		return err
	}
	for name, g := range s.globals {
		s.values[name] = g.Get()
	}
	globals, err := json.Marshal(s.values)
	if err != nil {
		return err
	}
	return replace(filepath.Join(s.dir, "globals.json"), globals)
}

func replace(path string, content []byte) error {
	if err := os.WriteFile(path+".tmp", content, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// Restore brings a guest that was just made to the last snapshot.
func (s *Snapshot) Restore() error {
	f, err := os.Open(filepath.Join(s.dir, "memory.bin"))
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	mem := s.module.Memory()
	if _, ok := mem.Grow(uint32((fi.Size() - int64(mem.Size())) / wasmPageSize)); !ok {
		return fmt.Errorf("memory of %d bytes: cannot be grown to it", fi.Size())
	}
	image, _ := mem.Read(0, mem.Size())
	if _, err := io.ReadFull(f, image); err != nil {
		return err
	}
	content, err := os.ReadFile(filepath.Join(s.dir, "globals.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, &s.values); err != nil {
		return err
	}
	for name, g := range s.globals {
		g.Set(s.values[name])
	}
	return nil
}

// Settle takes the first snapshot.
func (s *Snapshot) Settle() error { return s.Save() }
