//go:build wasip1

// Gobig is a Go guest of 5 MB: a store of JSON documents with a page for each, made by html/template. What it is for
// is its size: a start has to compile it or to find it compiled.
package main

import (
	"encoding/json"
	"html/template"
	"regexp"
	"strings"
)

var (
	documents = map[int64]map[string]any{}
	page      = template.Must(template.New("page").Parse(`<h1>{{.title}}</h1><p>{{.text}}</p>`))
	spaces    = regexp.MustCompile(`\s+`)
)

// put keeps a document of its own making and answers how many there are.
//
//go:wasmexport put
func put(key int64) int32 {
	var doc map[string]any
	if err := json.Unmarshal([]byte(`{"title": "a <title>", "text": "some   text"}`), &doc); err != nil {
		panic(err)
	}
	documents[key] = doc
	return int32(len(documents))
}

// render answers the length of a document's page in bytes, -1 if there is none.
//
//go:wasmexport render
func render(key int64) int32 {
	doc, ok := documents[key]
	if !ok {
		return -1
	}
	var b strings.Builder
	if err := page.Execute(&b, doc); err != nil {
		panic(err)
	}
	return int32(len(spaces.ReplaceAllString(b.String(), " ")))
}

func main() {}
