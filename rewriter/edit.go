package rewriter

// insertion is code that goes before an instruction of a function.
type insertion struct {
	body   int // index into module.bodies
	offset int // of the instruction in the module
	code   []byte
}

// codeEntries returns the entries of the code section with insertions made, which come in the order of the code. A function
// without an insertion is copied byte for byte, with its size as it was encoded.
func (m *module) codeEntries(insertions []insertion) []byte {
	s := m.section(secCode)
	if s == nil {
		return nil
	}
	if len(insertions) == 0 {
		return m.wasm[s.first:s.end]
	}
	added := 0
	for i := range insertions {
		added += len(insertions[i].code)
	}
	out := make([]byte, 0, s.end-s.first+added+5*len(insertions)) // sizes may take more bytes
	copied := s.first
	for len(insertions) > 0 {
		index := insertions[0].body
		n, size := 0, 0
		for n < len(insertions) && insertions[n].body == index {
			size += len(insertions[n].code)
			n++
		}
		body := m.bodies[index]
		bodyEntry := s.first // where its size is
		if index > 0 {
			bodyEntry = m.bodies[index-1].end
		}
		out = append(out, m.wasm[copied:bodyEntry]...)
		out = appendU32(out, uint32(body.end-body.start+size))
		copied = body.start
		for _, ins := range insertions[:n] {
			out = append(out, m.wasm[copied:ins.offset]...)
			out = append(out, ins.code...)
			copied = ins.offset
		}
		insertions = insertions[n:]
		out = append(out, m.wasm[copied:body.end]...)
		copied = body.end
	}
	return append(out, m.wasm[copied:s.end]...)
}
