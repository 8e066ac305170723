module github.com/mmrun/mmrun/realguests

go 1.26.0

require (
	github.com/fastschema/qjs v0.0.6
	github.com/mmrun/mmrun v0.0.0
	github.com/ncruces/go-sqlite3 v0.30.5
	github.com/tetratelabs/wazero v1.12.0
)

require (
	github.com/edsrzf/mmap-go v1.2.0 // indirect
	github.com/klauspost/compress v1.20.4 // indirect
	github.com/ncruces/julianday v1.0.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/mmrun/mmrun => ../
