package rewriter

// output puts the rewritten module together: sections of the input, some of them replaced or left out, and new ones where
// the format wants them.
type output struct {
	m       *module
	replace map[byte][]byte // new content of a section; it may be one that the input does not have
	omit    map[byte]bool
}

// vector gives a section the given entries behind its own ones, which are copied unless entries is not nil.
func (o *output) vector(id byte, entries []byte, added [][]byte) {
	count := 0
	if s := o.m.section(id); s != nil {
		count = s.count
		if entries == nil {
			entries = o.m.wasm[s.first:s.end]
		}
	}
	size := len(entries) + 5
	for _, a := range added {
		size += len(a)
	}
	content := appendU32(make([]byte, 0, size), uint32(count+len(added)))
	content = append(content, entries...)
	for _, a := range added {
		content = append(content, a...)
	}
	o.replace[id] = content
}

// bytes writes the module. A new section goes right behind the last one that must come before it, so that custom
// sections keep their neighbours.
func (o *output) bytes() []byte {
	size := len(o.m.wasm) + 64
	for _, content := range o.replace {
		size += len(content)
	}
	out := append(make([]byte, 0, size), preamble...)
	written := 0 // rank up to which all sections are written
	newSections := func(below int) {
		for written++; written < below; written++ {
			id := idOfRank(written)
			if content, ok := o.replace[id]; ok && o.m.section(id) == nil {
				out = appendSection(out, id, content)
			}
		}
	}
	for i := range o.m.sections {
		s := &o.m.sections[i]
		if s.id == secCustom {
			out = append(out, o.m.wasm[s.start:s.end]...)
			continue
		}
		if written == 0 {
			newSections(sectionRank[s.id]) // those before the first one
		}
		switch content, ok := o.replace[s.id]; {
		case o.omit[s.id]:
		case ok:
			out = appendSection(out, s.id, content)
		default:
			out = append(out, o.m.wasm[s.start:s.end]...)
		}
		written = sectionRank[s.id]
		newSections(o.nextRank(i + 1))
	}
	if written == 0 {
		newSections(len(sectionRank))
	}
	return out
}

// nextRank is the rank of the first section from index i on that is not custom.
func (o *output) nextRank(i int) int {
	for _, s := range o.m.sections[i:] {
		if s.id != secCustom {
			return sectionRank[s.id]
		}
	}
	return len(sectionRank)
}

func idOfRank(rank int) byte {
	for id, r := range sectionRank {
		if r == rank {
			return byte(id)
		}
	}
	return secCustom
}

func appendSection(out []byte, id byte, content []byte) []byte {
	out = append(out, id)
	out = appendU32(out, uint32(len(content)))
	return append(out, content...)
}
