//go:build !linux

// Command bench measures on Linux alone.
package main

import "fmt"

func main() { fmt.Println("bench: the report is measured on Linux") }
