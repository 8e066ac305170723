//go:build modules

package realguests

// These modules carry the guests. They are named here so that go.mod keeps them; nothing of their
// code is used.
import (
	_ "github.com/fastschema/qjs"
	_ "github.com/ncruces/go-sqlite3"
)
