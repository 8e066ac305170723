//go:build wasip1

// A guestbook that forgets nobody: its data are plain variables, and nothing is saved or loaded.
//
// An event is a name on standard input; the effect is a greeting on standard output.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

var guests = map[string]int{}

//go:wasmexport handle
func handle() int32 {
	b, err := io.ReadAll(os.Stdin)
	name := strings.TrimSpace(string(b))
	if err != nil || name == "" {
		fmt.Fprintln(os.Stderr, "an event without a name")
		return 1 // refused: nothing has happened
	}
	guests[name]++
	fmt.Printf("Hello %s, visit %d, guests %d\n", name, guests[name], len(guests))
	return 0
}

func main() {}
