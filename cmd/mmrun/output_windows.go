package main

import "os"

// isNullForBoth is false: writing to a handle that is closed is an error on Windows.
func isNullForBoth(*os.File) bool { return false }
