//go:build !linux

package mmapmem

var trackers []func(*Memory) (tracker, error)
