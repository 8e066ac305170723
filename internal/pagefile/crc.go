package pagefile

import (
	"crypto/subtle"
	"hash/crc32"
	"sync"
)

// The checksum of a page: CRC-32C, exclusive or that of a page of zeros.

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	crcOfZeros = crc32.Checksum(make([]byte, PageSize), castagnoli)
)

func pageChecksum(page []byte) uint32 { return crc32.Checksum(page, castagnoli) ^ crcOfZeros }

// smallPatch is the longest patch, in bytes, of which checksumChange can tell.
const smallPatch = 64

// checksumChange is what a page's checksum is to be exclusive-ored with when the bytes at offset
// become data, smallPatch bytes at most.
//
// Without its start value and its last inversion a CRC is linear: that of two strings, exclusive
// or, is the exclusive or of their CRCs. So what changes is the CRC of old and new data,
// exclusive or, with zeros in front, which leave a CRC of 0 as it is, and zeros behind.
func checksumChange(page *[PageSize]byte, offset int, data []byte) uint32 {
	var difference [smallPatch]byte
	n := subtle.XORBytes(difference[:], data, page[offset:])
	// Start value and result are inverted by the library.
	crc := ^crc32.Update(^uint32(0), castagnoli, difference[:n])
	return times(crc, zerosBehind()[PageSize-offset-n])
}

// A CRC is a polynomial over GF(2) modulo the Castagnoli polynomial, with the coefficient of x^0 in
// the highest bit. A zero byte behind multiplies it by x^8.
const one = 1 << 31

func timesX(a uint32) uint32 { return a>>1 ^ crc32.Castagnoli&-(a&1) }

// times multiplies two of these polynomials.
func times(a, b uint32) (product uint32) {
	for ; b != 0; b <<= 1 {
		product ^= a & -(b >> 31)
		a = timesX(a)
	}
	return product
}

// zerosBehind is x^8n for so many zero bytes n as a page can have.
var zerosBehind = sync.OnceValue(func() *[PageSize + 1]uint32 {
	var powers [PageSize + 1]uint32
	power := uint32(one)
	for i := range powers {
		powers[i] = power
		for range 8 {
			power = timesX(power)
		}
	}
	return &powers
})
