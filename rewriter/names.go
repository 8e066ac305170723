package rewriter

// globalNames reads the names of globals from the name section. They are for people only: a name section that is broken
// gives no names, not an error, as the format wants it for custom sections.
func (m *module) globalNames() map[uint32]string {
	const globalSubsection = 7
	names := map[uint32]string{}
	for _, s := range m.sections {
		if s.id != secCustom || s.custom != "name" {
			continue
		}
		r := &reader{buf: m.wasm, pos: s.body, end: s.end}
		_, _ = r.name() // "name"
		for r.left() > 0 {
			id, _ := r.byte()
			size, err := r.u32()
			start := r.pos
			if err != nil || r.skip(size) != nil {
				return names
			}
			if id != globalSubsection {
				continue
			}
			sub := &reader{buf: m.wasm, pos: start, end: r.pos}
			n, err := sub.count("names")
			for ; err == nil && n > 0; n-- {
				var index uint32
				var name string
				if index, err = sub.u32(); err == nil {
					if name, err = sub.name(); err == nil {
						names[index] = name
					}
				}
			}
		}
	}
	return names
}
