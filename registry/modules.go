package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/mmrun/mmrun"
)

// modules are those that instances are made with and run.
type modules struct {
	dir     string
	compile func(ctx context.Context, wasm []byte) (*mmrun.Module, error)

	mu    sync.Mutex
	named map[string]*mmrun.Module
	known map[[32]byte]*mmrun.Module
	own   []*mmrun.Module // compiled here
	// links counts the copies of a module's file: file systems limit the names that a file may
	// have.
	links map[[32]byte]int
}

// add makes a module known, and keeps its bytes.
func (s *modules) add(name string, m *mmrun.Module) error {
	if m == nil {
		return errors.New("the module is nil")
	}
	if err := s.keep(m, 0); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.named == nil {
		s.named, s.known = make(map[string]*mmrun.Module), make(map[[32]byte]*mmrun.Module)
		s.links = make(map[[32]byte]int)
	}
	if _, ok := s.named[name]; ok {
		return fmt.Errorf("module %q: there is one of that name already", name)
	}
	s.named[name], s.known[m.Hash()] = m, m
	return nil
}

func (s *modules) path(hash [32]byte, copy int) string {
	name := hex.EncodeToString(hash[:])
	if copy > 0 {
		name += fmt.Sprintf(".%d", copy)
	}
	return filepath.Join(s.dir, name+".wasm")
}

// keep writes a copy of a module, unless it is there.
func (s *modules) keep(m *mmrun.Module, copy int) error {
	path := s.path(m.Hash(), copy)
	if info, err := os.Lstat(path); err == nil && info.Size() == int64(len(m.Wasm())) {
		return nil
	}
	return writeFile(path, m.Wasm())
}

func (s *modules) byName(name string) (*mmrun.Module, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.named[name]
	if !ok {
		return nil, fmt.Errorf("module %q: %w", name, ErrNoModule)
	}
	return m, nil
}

// byHash finds the module of an instance, compiling it if that can be.
func (s *modules) byHash(ctx context.Context, hash [32]byte) (*mmrun.Module, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m, ok := s.known[hash]; ok {
		return m, nil
	}
	if s.compile == nil {
		return nil, fmt.Errorf("module with SHA-256 %x: %w", hash, ErrNoModule)
	}
	wasm, err := os.ReadFile(s.path(hash, 0))
	if err == nil && sha256.Sum256(wasm) != hash {
		err = fmt.Errorf("%s: damaged: it has another SHA-256 than its name says", s.path(hash, 0))
	}
	if err != nil {
		return nil, fmt.Errorf("module with SHA-256 %x: %w", hash, errors.Join(ErrNoModule, err))
	}
	m, err := s.compile(ctx, wasm)
	if err == nil {
		s.known[hash] = m
		s.own = append(s.own, m)
	}
	return m, err
}

// link gives the module of a new state its name.
func (s *modules) link(m *mmrun.Module, path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	hash := m.Hash()
	for {
		n := s.links[hash]
		err := os.Link(s.path(hash, n), path)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, fs.ErrNotExist) && n > 0, isFull(err):
			// As many names as a file may have: the next ones go to another copy.
			if isFull(err) {
				s.links[hash]++
			}
			if err := s.keep(m, s.links[hash]); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

func (s *modules) close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, m := range s.own {
		errs = append(errs, m.Close(ctx))
	}
	s.own = nil
	return errors.Join(errs...)
}
