//go:build !linux

package mmapmem

func withoutProtection(Tracker) {}
