//go:build !linux

package upgrade

func exchange(a, b string) error { return exchangeByNames(a, b) }
