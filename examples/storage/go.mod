module github.com/mmrun/mmrun/examples/storage

go 1.26.0

require (
	github.com/mmrun/mmrun v0.0.0
	github.com/tetratelabs/wazero v1.12.0
)

require (
	github.com/edsrzf/mmap-go v1.2.0 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/mmrun/mmrun => ../..
