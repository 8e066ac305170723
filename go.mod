module github.com/mmrun/mmrun

go 1.26.0

require (
	github.com/edsrzf/mmap-go v1.2.0
	github.com/tetratelabs/wazero v1.12.0
	golang.org/x/sys v0.49.0
	pgregory.net/rapid v1.3.0
)
