//go:build unix

package vfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// noFollow refuses links, and keeps a pipe that is opened from waiting for its other end. The
// latter changes nothing for a regular file.
const noFollow = unix.O_NOFOLLOW | unix.O_NONBLOCK

// isLinkRefused: FreeBSD says EMLINK where the others say ELOOP.
func isLinkRefused(err error) bool {
	return errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EMLINK)
}
