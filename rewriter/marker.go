package rewriter

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/mmrun/mmrun/rewriter/internal/wasm"
)

// The marker is the last section of a rewritten module, a custom section:
//
//	name "mmrun" | format version, LEB128 | mark as JSON
const (
	markerName    = "mmrun"
	markerVersion = 3
)

// mark says what has been done to a module.
type mark struct {
	Passes []string `json:"passes"` // by name, with their options, in the order in which they ran
	Info   *Info    `json:"info"`
}

// section is the content of the custom section, name included.
func (k mark) section() []byte {
	text, err := json.Marshal(k)
	if err != nil {
		panic(err) // no type in it can fail
	}
	return append(wasm.AppendU32(wasm.AppendName(nil, markerName), markerVersion), text...)
}

// ReadInfo returns the Info of a module as Rewrite has returned it, and the passes that it went
// through. It believes what the module says of itself, so it is only for modules from where nobody
// else writes: a cache, but not a state directory. It looks at nothing but the module's last
// section.
func ReadInfo(rewritten []byte) (info Info, passes []string, err error) {
	content, err := wasm.LastCustom(rewritten, markerName)
	if err != nil {
		return Info{}, nil, publicError(err)
	}
	if content == nil {
		return Info{}, nil, &FormatError{Offset: len(rewritten),
			Reason: "the module has not been rewritten: its last section is not the custom " +
				"section " +
				markerName}
	}
	version, text, err := wasm.CutU32(content)
	if err != nil {
		return Info{}, nil, publicError(err)
	}
	if version != markerVersion {
		return Info{}, nil, &UnsupportedError{Reason: fmt.Sprintf("the module was rewritten in "+
			"version "+
			"%d of the format, this is version %d: rewrite the original "+
			"anew", version, markerVersion)}
	}
	k := mark{Info: &info}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return Info{}, nil, &FormatError{Offset: len(rewritten) - len(text),
			Reason: fmt.Sprintf("the custom section %q cannot be read: %v", markerName, err)}
	}
	return info, slices.Clip(k.Passes), nil
}
