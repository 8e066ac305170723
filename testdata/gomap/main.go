//go:build wasip1

// Gomap is a Go guest: a reactor whose state is a map, a growing heap under Go's garbage collector and
// a goroutine that waits for its next request between two events.
package main

import (
	"fmt"
	"runtime"
	"slices"
)

var entries = map[string]int{}

//go:wasmexport put
func put(key, value int64) {
	entries[name(key)] = int(value)
}

// get answers -1 for a key that is absent.
//
//go:wasmexport get
func get(key int64) int64 {
	value, ok := entries[name(key)]
	if !ok {
		return -1
	}
	return int64(value)
}

// del answers 1 if the key was there.
//
//go:wasmexport del
func del(key int64) int32 {
	if _, ok := entries[name(key)]; !ok {
		return 0
	}
	delete(entries, name(key))
	return 1
}

//go:wasmexport length
func length() int32 {
	return int32(len(entries))
}

// bulk puts the keys 0 to n-1, each with itself as its value.
//
//go:wasmexport bulk
func bulk(n int32) {
	for i := range int64(n) {
		put(i, i)
	}
}

// checksum is FNV-1a over all entries as "name=value\n", in the order of their names.
//
//go:wasmexport checksum
func checksum() int64 {
	names := make([]string, 0, len(entries))
	for n := range entries {
		names = append(names, n)
	}
	slices.Sort(names)
	h := uint64(14695981039346656037)
	for _, n := range names {
		for _, b := range fmt.Appendf(nil, "%s=%d\n", n, entries[n]) {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}
	return int64(h)
}

// counter lives on the stack of a goroutine alone.
func counter(requests <-chan int64, answers chan<- int64) {
	var n int64
	for add := range requests {
		n += add
		answers <- n
	}
}

var (
	requests = make(chan int64)
	answers  = make(chan int64)
)

func init() {
	go counter(requests, answers)
}

// count adds to the goroutine's counter and answers what it holds then.
//
//go:wasmexport count
func count(add int64) int64 {
	requests <- add
	return <-answers
}

//go:wasmexport gc
func gc() {
	runtime.GC()
}

// fail panics after it has changed the map.
//
//go:wasmexport fail
func fail(key int64) {
	put(key, -2)
	panic("fail was called")
}

func name(key int64) string {
	return fmt.Sprintf("key-%d", key)
}

func main() {} // not called in a reactor
