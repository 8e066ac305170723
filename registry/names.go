package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxName is the length of the longest name, in bytes.
const MaxName = 1024

const (
	longest     = 200 // bytes of a name in a directory; longer ones are replaced by a digest
	longPrefix  = "~"
	nameSuffix  = ".name"
	shardDigits = 3
)

// ErrName: a name is empty, too long or no UTF-8.
var ErrName = errors.New("no name of an instance")

func checkName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("%w: it is empty", ErrName)
	case len(name) > MaxName:
		return fmt.Errorf("%w: it has %d bytes, the most is %d", ErrName, len(name), MaxName)
	case !utf8.ValidString(name):
		return fmt.Errorf("%w: it is no UTF-8", ErrName)
	}
	return nil
}

// place is where an instance is in the data directory.
type place struct{ shard, base string }

func placeOf(name string) place {
	sum := sha256.Sum256([]byte(name))
	digest := hex.EncodeToString(sum[:])
	p := place{digest[:shardDigits], encode(name)}
	if len(p.base) > longest {
		p.base = longPrefix + digest
	}
	return p
}

func (p place) dir(data string) string {
	return filepath.Join(data, instancesName, p.shard,
		p.base)
}

// isLong tells whether the name has a file of its own.
func (p place) isLong() bool { return strings.HasPrefix(p.base, longPrefix) }

func encode(name string) string {
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			b.WriteString(escaped(c))
		}
	}
	s := b.String()
	device := isDevice(s) // on Windows, in any directory
	if strings.HasSuffix(s, ".") || strings.HasSuffix(s, nameSuffix) {
		// The former is cut off there, the latter is the file of a long name.
		s = s[:len(s)-1] + escaped(s[len(s)-1])
	}
	if device {
		s = escaped(s[0]) + s[1:]
	}
	return s
}

func escaped(c byte) string { return fmt.Sprintf("%%%02X", c) }

// isDevice tells whether Windows takes a name for a device.
func isDevice(s string) bool {
	base, _, _ := strings.Cut(s, ".")
	switch {
	case base == "con", base == "prn", base == "aux", base == "nul":
		return true
	case len(base) == 4 && (base[:3] == "com" || base[:3] == "lpt"):
		return '0' <= base[3] && base[3] <= '9'
	}
	return false
}

// decode is the inverse of encode; ok is false for what it does not write.
func decode(base string) (name string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(base); i++ {
		if base[i] != '%' {
			b.WriteByte(base[i])
			continue
		}
		if i+2 >= len(base) {
			return "", false
		}
		c, err := strconv.ParseUint(base[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b.WriteByte(byte(c))
		i += 2
	}
	name = b.String()
	return name, checkName(name) == nil && encode(name) == base
}

// nameOf is the name of what lies in a shard, ok is false if that is no instance.
func nameOf(data, shard, base string) (name string, ok bool) {
	if !strings.HasPrefix(base, longPrefix) {
		if name, ok = decode(base); !ok {
			return "", false
		}
	} else {
		b, err := os.ReadFile(place{shard, base}.dir(data) + nameSuffix)
		if err != nil {
			return "", false
		}
		name = string(b)
	}
	return name, placeOf(name) == place{shard, base}
}
