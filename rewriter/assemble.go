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
	o.replace[id] = concat(count+len(added), entries, added)
}

// replaceVector gives a section other entries.
func (o *output) replaceVector(id byte, entries [][]byte) {
	o.replace[id] = concat(len(entries), nil, entries)
}

func concat(count int, first []byte, others [][]byte) []byte {
	size := 5 + len(first)
	for _, e := range others {
		size += len(e)
	}
	content := append(appendU32(make([]byte, 0, size), uint32(count)), first...)
	for _, e := range others {
		content = append(content, e...)
	}
	return content
}

// bytes writes the module, with a last custom section. A new section goes right behind the last one that must come before it, so that custom
// sections keep their neighbours.
func (o *output) bytes(last []byte) []byte {
	size := len(o.m.wasm) + len(last) + 200 // headers of sections are less
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
	return appendSection(out, secCustom, last)
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
