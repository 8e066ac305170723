package peers

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
)

const (
	// KeySize and ValueSize are in bytes.
	KeySize   = 16
	ValueSize = 100
	entrySize = KeySize + ValueSize
)

type (
	// Key is a key of the table.
	Key [KeySize]byte
	// Value is a value of the table.
	Value [ValueSize]byte
	// Entry is one line of the table, as the guest reads it: key, then value.
	Entry struct {
		Key   Key
		Value Value
	}
)

// mix is a bijection of 64 bits that looks random (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// KeyOf is the i-th key. Keys of neighbours are far apart.
func KeyOf(i uint32) (k Key) {
	binary.BigEndian.PutUint64(k[:], mix(uint64(i)+1))
	binary.BigEndian.PutUint64(k[8:], uint64(i))
	return k
}

// ValueOf is the value of the i-th key after it has been written version times. It ends with the
// version, so that a stale read tells how old it is.
func ValueOf(i, version uint32) (v Value) {
	x := uint64(i)<<32 | uint64(version)
	for at := 0; at < 96; at += 8 {
		x = mix(x + 0x9e3779b97f4a7c15)
		binary.LittleEndian.PutUint64(v[at:], x)
	}
	binary.LittleEndian.PutUint32(v[96:], version)
	return v
}

// Version is how often the key of a value has been written.
func (v *Value) Version() uint32 { return binary.LittleEndian.Uint32(v[96:]) }

// Draw chooses keys.
type Draw interface {
	// Next is below the number of keys.
	Next(r *rand.Rand) uint32
}

// Uniform draws each of that many keys equally often.
type Uniform uint32

// Next implements Draw.
func (u Uniform) Next(r *rand.Rand) uint32 { return r.Uint32N(uint32(u)) }

// Zipfian draws few keys often, as YCSB does: by the method of Gray et al. ("Quickly generating
// billion-record synthetic databases", 1994) with theta 0.99, the ranks scattered over the keys.
type Zipfian struct {
	n                        float64
	theta, alpha, zetaN, eta float64
}

// NewZipfian is over that many keys.
func NewZipfian(keys uint32) *Zipfian {
	z := &Zipfian{n: float64(keys), theta: 0.99}
	for i := uint32(1); i <= keys; i++ {
		z.zetaN += math.Pow(float64(i), -z.theta)
	}
	zeta2 := 1 + math.Pow(0.5, z.theta)
	z.alpha = 1 / (1 - z.theta)
	z.eta = (1 - math.Pow(2/z.n, 1-z.theta)) / (1 - zeta2/z.zetaN)
	return z
}

// Next implements Draw.
func (z *Zipfian) Next(r *rand.Rand) uint32 {
	u := r.Float64()
	rank := 0.0
	switch uz := u * z.zetaN; {
	case uz < 1:
	case uz < 1+math.Pow(0.5, z.theta):
		rank = 1
	default:
		rank = math.Floor(z.n * math.Pow(z.eta*u-z.eta+1, z.alpha))
	}
	return uint32(mix(uint64(rank)) % uint64(z.n))
}
