package wasm

import "bytes"

const nameSection = "name"

// Parts of the name section whose entries begin with an index of a space that may be renumbered, or
// with one that does not matter here.
const (
	namesOfModule  = 0
	namesOfFuncs   = 1
	namesOfLocals  = 2 // by function
	namesOfLabels  = 3 // by function
	namesOfGlobals = 7
)

// checkNames reads a name section behind its name. wazero reads on where a part of it is longer
// than it says, beyond the section's end if need be, so that what it makes of the section would
// depend on what comes behind it.
func checkNames(r *Reader) error {
	start := r.pos
	err := r.eachNames(func(id byte, part *Reader) error {
		switch id {
		case namesOfModule:
			if _, err := part.name(); err != nil {
				return err
			}
		case namesOfFuncs, namesOfLocals:
			if err := part.nameMap(id == namesOfLocals,
				func(int, int, uint32, string) {
				}); err != nil {
				return err
			}
		default:
			return nil
		}
		if part.left() > 0 {
			return Malformed(part.pos, "%d bytes left", part.left())
		}
		return nil
	})
	if err != nil {
		return Unsupported(start, "its name section is broken (%v): remove it", err)
	}
	return nil
}

func (r *Reader) eachNames(fn func(id byte, part *Reader) error) error {
	for r.left() > 0 {
		id, err := r.byte()
		if err != nil {
			return err
		}
		size, err := r.u32()
		if err != nil {
			return err
		}
		start := r.pos
		if err := r.skip(size); err != nil {
			return err
		}
		if err := fn(id, r.part(start, r.pos)); err != nil {
			return err
		}
	}
	return nil
}

// nameMap reads names by index, or names by index by function, and tells fn where the outer index
// lies, what it is, and its name if there is one.
func (r *Reader) nameMap(indirect bool, fn func(start, end int, index uint32, name string)) error {
	n, err := r.count("names")
	for ; err == nil && n > 0; n-- {
		start := r.pos
		var index uint32
		if index, err = r.u32(); err != nil {
			return err
		}
		end := r.pos
		var name string
		if indirect {
			err = r.nameMap(false, func(int, int, uint32, string) {})
		} else {
			name, err = r.name()
		}
		if err == nil {
			fn(start, end, index, name)
		}
	}
	return err
}

// GlobalNames reads the names of globals from the name section, so far as it makes sense.
func (m *Module) GlobalNames() map[uint32]string {
	names := map[uint32]string{}
	for _, s := range m.sections {
		if s.id != SecCustom || s.custom != nameSection {
			continue
		}
		r := &Reader{buf: m.raw, pos: s.body, end: s.end}
		_, _ = r.name()
		_ = r.eachNames(func(id byte, part *Reader) error {
			if id != namesOfGlobals {
				return nil
			}
			return part.nameMap(false,
				func(_, _ int, index uint32, name string) {
					names[index] = name
				})
		})
	}
	return names
}

// renumberNames writes a name section with other indices of functions.
func (m *Module) renumberNames(s *section, final []uint32) []byte {
	r := &Reader{buf: m.raw, pos: s.body, end: s.end}
	_, _ = r.name()
	out := bytes.Clone(m.raw[s.body:r.pos])
	_ = r.eachNames(func(id byte, part *Reader) error {
		content := m.raw[part.pos:part.end]
		if id == namesOfFuncs || id == namesOfLocals || id == namesOfLabels {
			p := patch{from: m.raw, copied: part.pos}
			err := part.nameMap(id != namesOfFuncs, func(start, end int, index uint32, _ string) {
				p.index(start, end, index, final)
			})
			if err == nil {
				content = p.upTo(part.end)
			}
		}
		out = AppendSection(out, id, content)
		return nil
	})
	return out
}
