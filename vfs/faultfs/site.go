package faultfs

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// Site names the place in the program that asked for the operation a layer is called for: the
// functions of the module in whose tree the caller is, innermost first, down to the first that
// lies in the package with the given import path, each with its line.
func Site(module string) string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	var site []string
	for {
		f, more := frames.Next()
		dir, fn := path.Split(f.Function)
		name, _, _ := strings.Cut(fn, ".")
		pkg := dir + name
		if strings.HasPrefix(pkg, module) && !isHarness(strings.TrimPrefix(pkg, module)) &&
			!strings.HasSuffix(f.File, "_test.go") {
			site = append(site, fmt.Sprintf("%s:%d", fn, f.Line))
			if pkg == module {
				break
			}
		}
		if !more {
			break
		}
	}
	return strings.Join(site, " < ")
}

// isHarness tells whether a package of the module, by its path below it, only hands operations on
// or tests the program.
func isHarness(pkg string) bool {
	for _, dir := range []string{"/vfs", "/internal/crashtest", "/internal/testkit"} {
		if pkg == dir || strings.HasPrefix(pkg, dir+"/") {
			return true
		}
	}
	return false
}
