package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/registry"
)

const (
	pageLength  = 100
	longestPage = 1000
)

// list is GET /v1/instances.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	limit := pageLength
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > longestPage {
			fail(w, problem{Status: http.StatusBadRequest, Kind: "usage",
				Detail: fmt.Sprintf("limit %q: want 1 to %d", text, longestPage)})
			return
		}
		limit = n
	}
	names, next, err := s.registry.List(r.URL.Query().Get("after"), limit)
	if err != nil {
		s.failed(w, r, err, nil)
		return
	}
	page := struct {
		Instances []string `json:"instances"`
		Next      string   `json:"next,omitempty"` // what to ask on with
	}{names, next}
	if page.Instances == nil {
		page.Instances = []string{}
	}
	s.json(w, page)
}

func (s *Server) json(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of types of this package
	}
	answerJSON(w, append(b, '\n'))
}

// instance is what is told of one.
type instance struct {
	Name   string       `json:"name"`
	Module string       `json:"module"` // SHA-256, hexadecimal
	Open   bool         `json:"open"`
	Stats  *mmrun.Stats `json:"stats,omitempty"` // if it is open
}

// show is GET /v1/instances/{name}. It does not open the instance.
func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	exists, err := s.registry.Exists(name)
	if err == nil && !exists {
		err = fmt.Errorf("instance %q: %w", name, registry.ErrNotExist)
	}
	if err != nil {
		s.failed(w, r, err, nil)
		return
	}
	out := instance{Name: name}
	hash, err := mmrun.StateModule(s.registry.Dir(name))
	if err != nil {
		s.failed(w, r, err, nil)
		return
	}
	out.Module = fmt.Sprintf("%x", hash)
	if stats, open := s.registry.IsOpen(name); open {
		out.Open, out.Stats = true, &stats
	}
	s.json(w, out)
}

// create is PUT /v1/instances/{name}.
func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if err := s.registry.Create(r.Context(), name, r.URL.Query().Get("module")); err != nil {
		s.failed(w, r, err, nil)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// delete is DELETE /v1/instances/{name}.
func (s *Server) delete(w http.ResponseWriter, r *http.Request) {
	if err := s.registry.Delete(r.Context(), r.PathValue("name")); err != nil {
		s.failed(w, r, err, nil)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
