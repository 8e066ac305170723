//go:build !linux && !darwin && !freebsd

package vfs

import "os"

func nextData(*os.File, int64) (start, end int64, ok bool) { return 0, 0, false }
