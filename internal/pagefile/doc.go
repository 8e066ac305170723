// Package pagefile changes the memory file of a state and keeps the checksums of its pages.
//
// A [Patcher] puts byte ranges, those of log records, into the file, merged by page. [Checksums]
// is the file memory.sums beside it, a checksum a page: a page that is changed in part is read,
// and is to have its checksum, otherwise damage would get a new one and never be found. [Verify]
// holds all pages against their checksums.
package pagefile

// PageSize is the unit of checksums in bytes: 4 KiB.
const PageSize = 4096
