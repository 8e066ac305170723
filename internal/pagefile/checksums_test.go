package pagefile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/mmrun/mmrun/internal/binding"
	"github.com/mmrun/mmrun/internal/testkit/scratch"
	"github.com/mmrun/mmrun/vfs"
)

// stamp is what the files of these tests say of themselves.
var stamp = binding.Stamp{Seq: 1, Checkpoint: 7}

func encodedHeader() (h [headerSize]byte) {
	binding.NewHeader(stamp).Encode(h[:])
	return h
}

func errorOf(_ binding.Stamp, err error) error { return err }

// Verify names exactly the pages that were changed after their checksums were noted, also where
// memory or checksums end early because all that follows is zeros.
func TestVerifyNamesTheDamagedPages(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		pages := rapid.IntRange(1, 3000).Draw(t, "pages")
		memory := make([]byte, pages*PageSize)
		for range rapid.IntRange(0, 20).Draw(t, "writes") {
			at := rapid.IntRange(0, len(memory)-1).Draw(t, "at")
			memory[at] = rapid.Byte().Draw(t, "byte")
		}
		file := scratch.File(t, dir, "memory.sums")
		sums := checksumsOf(t, file)
		if err := sums.Build(bytes.NewReader(memory), uint64(len(memory)), stamp); err != nil {
			t.Fatal(err)
		}
		var want []uint32
		for range rapid.IntRange(0, 5).Draw(t, "flips") {
			at := rapid.IntRange(0, len(memory)-1).Draw(t, "flip")
			memory[at] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
			if page := uint32(at / PageSize); !slices.Contains(want, page) {
				want = append(want, page)
			} else {
				memory[at] ^= 0xff // never back to what it was
			}
		}
		slices.Sort(want)
		var bad []uint32
		size := uint64(len(memory))
		noted := bytes.TrimRight(contents(t, file), "\x00")
		noted = append(noted, make([]byte, max(0, headerSize-len(noted)))...)
		short := bytes.TrimRight(memory, "\x00")
		err := Verify(bytes.NewReader(short), bytes.NewReader(noted), size,
			func(page uint32) { bad = append(bad, page) })
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(bad, want) {
			t.Errorf("pages %d were named, %d were damaged", bad, want)
		}
	})
}

// A memory of zeros needs no checksums, and any page can tell that it is not zeros.
func TestChecksumOfZerosIsZero(t *testing.T) {
	page := make([]byte, PageSize)
	if got := pageChecksum(page); got != 0 {
		t.Errorf("the checksum of zeros is %#x, want 0", got)
	}
	for bit := range PageSize * 8 {
		page[bit/8] ^= 1 << (bit % 8)
		if pageChecksum(page) == 0 {
			t.Fatalf("a page with bit %d set has the checksum of zeros", bit)
		}
		page[bit/8] = 0
	}
}

// The bytes of format version 2. A change of these is another version.
func TestFormatOfChecksums(t *testing.T) {
	const want = "" +
		"00000000" + // page 0: zeros
		"bbbf8804" + // page 1: 00 01 02 ... ff 00 ...
		"00000000"
	memory := make([]byte, 3*PageSize)
	for i := range PageSize {
		memory[PageSize+i] = byte(i)
	}
	file := scratch.File(t, t.TempDir(), "memory.sums")
	if err := checksumsOf(t, file).Build(bytes.NewReader(memory), uint64(len(memory)),
		stamp); err != nil {
		t.Fatal(err)
	}
	got := contents(t, file)
	if len(got) != blockSize {
		t.Errorf("the file has %d bytes, want one block", len(got))
	}
	if got := hex.EncodeToString(got[headerSize:][:12]); got != want {
		t.Errorf("checksums %s\nwant %s", got, want)
	}
	if s, err := ReadStamp(file); err != nil || s != stamp {
		t.Errorf("stamp %+v, want %+v (%v)", s, stamp, err)
	}
	if len(bytes.Trim(got[headerSize+12:], "\x00")) > 0 {
		t.Error("the rest of the block is not zeros")
	}
}

// A file that is not one of checksums, a damaged header, and another version are told apart, and
// each by whoever meets it first.
func TestHeaderOfChecksumsIsChecked(t *testing.T) {
	header := encodedHeader()
	const copies, step, crcAt = 3, 512, 60 // as internal/binding draws them
	changed := func(offset int, to ...byte) []byte {
		h := bytes.Clone(header[:])
		for i := range copies {
			copy(h[i*step+offset:], to)
		}
		return h
	}
	resealed := func(h []byte) []byte {
		for i := range copies {
			c := h[i*step:]
			binary.LittleEndian.PutUint32(c[crcAt:], crc32.Checksum(c[:crcAt], castagnoli))
		}
		return h
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		kind  error
		text  string
	}{
		{"empty", nil, ErrChecksum, "magic number is missing"},
		{"short", header[:40], ErrChecksum, "header"},
		{"no magic", changed(0, 'M'), ErrChecksum, "magic number is missing"},
		{"a flipped bit", changed(20, 1), ErrChecksum, "header"},
		{"another version", resealed(changed(8, 3)), ErrVersion,
			"format version 3, this program reads version 2"},
		{"other pages", resealed(changed(13, 0x20)), ErrVersion, "page size 8192"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := scratch.File(t, t.TempDir(), "memory.sums")
			if _, err := f.WriteAt(c.bytes, 0); err != nil {
				t.Fatal(err)
			}
			sums := NewChecksums(func() (vfs.File, error) { return f, nil })
			memory := scratch.File(t, t.TempDir(), "memory")
			p := NewPatcher(memory, sums)
			patched := p.Patch(0, []byte{1})
			if patched == nil {
				patched = p.Flush()
			}
			for who, err := range map[string]error{
				"Stamp": errorOf(sums.Stamp()), "Clip": sums.Clip(0), "Patcher": patched,
				"ReadStamp": errorOf(ReadStamp(f)),
				"Verify":    Verify(memory, f, PageSize, func(uint32) {}),
			} {
				if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
					t.Errorf("%s: %v, want one of %v with %q", who, err, c.kind, c.text)
				}
			}
			if size, _ := memory.Size(); size > 0 {
				t.Error("the memory was written all the same")
			}
			if got := contents(t, f); !bytes.Equal(got, c.bytes) {
				t.Error("the file was changed")
			}
		})
	}
}

// A file that claims a terabyte takes no more memory and time than one that is as long as it
// should be.
func TestSparseChecksumsAreReadInPieces(t *testing.T) {
	f := scratch.File(t, t.TempDir(), "memory.sums")
	sums := checksumsOf(t, f)
	if err := f.Truncate(1 << 40); err != nil {
		t.Skip(err)
	}
	counting := &countingFile{File: f}
	sums.file = counting
	if err := sums.set(5, 77); err != nil {
		t.Fatal(err)
	}
	if err := sums.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := Verify(scratch.File(t, t.TempDir(), "memory"), f, 10*PageSize, func(page uint32) {
		if page != 5 {
			t.Errorf("page %d", page)
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := sums.Clip(4 * PageSize); err != nil {
		t.Fatal(err)
	}
	if size, err := f.Size(); err != nil || size != place(4) {
		t.Errorf("%d bytes after Clip, %v", size, err)
	}
	if counting.reads > 100 {
		t.Errorf("%d reads", counting.reads)
	}
}

// A checksum that is there already is written and synced all the same: a killed process may have
// left it in the page cache only.
func TestKnownChecksumsAreSyncedAgain(t *testing.T) {
	f := scratch.File(t, t.TempDir(), "memory.sums")
	sums := checksumsOf(t, f)
	counting := &countingFile{File: f}
	sums.file = counting
	for n := 1; n <= 2; n++ {
		if err := errors.Join(sums.set(1, 9), sums.Sync()); err != nil {
			t.Fatal(err)
		}
		if counting.writes != n || counting.syncs != n {
			t.Errorf("%d writes, %d syncs, want %d each", counting.writes, counting.syncs, n)
		}
	}
	if err := sums.Sync(); err != nil || counting.syncs != 2 {
		t.Errorf("nothing has changed: %d syncs, %v", counting.syncs, err)
	}
}

// A write of checksums that fails leaves no page written, and nothing in memory that is taken for
// what is in the file.
func TestFailedWriteOfChecksumsIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	memory, f := scratch.File(t, dir, "memory"), scratch.File(t, dir, "memory.sums")
	sums := checksumsOf(t, f)
	full := &fullFile{File: f, room: 1}
	sums.file = full
	p := NewPatcher(memory, sums)
	for page := range uint64(3) { // in three blocks
		if err := p.Patch(page*2000*PageSize, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(); !errors.Is(err, errFull) {
		t.Fatal(err)
	}
	if size, _ := memory.Size(); size > 0 {
		t.Error("pages were written before all their checksums")
	}
	full.room = 100
	if err := p.Flush(); err != nil {
		t.Fatal(err)
	}
	wrong := func(page uint32) { t.Errorf("page %d has a wrong checksum", page) }
	if err := Verify(memory, f, 5000*PageSize, wrong); err != nil {
		t.Fatal(err)
	}
}

var errFull = errors.New("no room")

type fullFile struct {
	vfs.File
	room int // writes that succeed
}

func (f *fullFile) WriteAt(p []byte, offset int64) (int, error) {
	if f.room--; f.room < 0 {
		return 0, errFull
	}
	return f.File.WriteAt(p, offset)
}

// The file is open between the first use and Release and at no other time.
func TestChecksumsAreOpenWhileTheyAreUsed(t *testing.T) {
	f := scratch.File(t, t.TempDir(), "memory.sums")
	checksumsOf(t, f)
	open := 0
	sums := NewChecksums(func() (vfs.File, error) {
		open++
		return closing{f, &open}, nil
	})
	p := NewPatcher(scratch.File(t, t.TempDir(), "memory"), sums)
	if open != 0 {
		t.Error("open before it is needed")
	}
	for range 3 {
		if err := errors.Join(p.Patch(0, make([]byte, PageSize)), p.Flush()); err != nil {
			t.Fatal(err)
		}
		if open != 1 {
			t.Errorf("open %d times", open)
		}
		sums.Release()
		sums.Release()
		if open != 0 || sums.blocks != nil {
			t.Errorf("open %d times after Release, %d blocks held", open, len(sums.blocks))
		}
	}
}

type closing struct {
	vfs.File
	open *int
}

func (c closing) Close() error {
	*c.open--
	return nil
}

// Whatever the bytes of the file, whoever reads them gets an error or checksums.
func FuzzChecksums(f *testing.F) {
	header := encodedHeader()
	f.Add(header[:], uint16(10))
	f.Add(append(header[:], 1, 2, 3, 4, 5), uint16(2000))
	f.Add([]byte("mmrunSUM"), uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, pages uint16) {
		memory := bytes.NewReader(nil)
		size := uint64(pages) * PageSize
		err := Verify(memory, bytes.NewReader(b), size, func(page uint32) {
			s, err := NewSuspect(memory, bytes.NewReader(b), page)
			if err != nil || s.Innocent() {
				t.Errorf("page %d: %v", page, err)
			}
		})
		if err != nil && !errors.Is(err, ErrChecksum) && !errors.Is(err, ErrVersion) {
			t.Error(err)
		}
		if got := errorOf(ReadStamp(bytes.NewReader(b))); fmt.Sprint(got) != fmt.Sprint(err) {
			t.Errorf("ReadStamp says %v, Verify %v", got, err)
		}
	})
}
