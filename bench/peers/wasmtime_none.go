//go:build !wasmtime

package peers

import "errors"

func wasmtimePeers() []Peer {
	return []Peer{{Name: "wasmtime copy, rename", Safety: Kill, Slow: true, CopyBased: true,
		Settings: "memory.bin and globals.json, as from wazero",
		Missing:  func() error { return errors.New("built without -tags wasmtime") }}}
}
