package server

import (
	"embed"
	"net/http"
	"path"
	"strings"
)

//go:embed page.html page.js page.css openapi.json
var files embed.FS

// page serves the page and its parts.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if name == "" {
		name = "page.html"
	}
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; script-src 'self'; style-src 'self'; "+
			"connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "+
			"frame-ancestors 'none'")
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.ServeFileFS(w, r, files, name)
}

// openapi is GET /openapi.json.
func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	b, err := files.ReadFile("openapi.json")
	if err != nil {
		panic(err) // it is embedded
	}
	answerJSON(w, b)
}
