package spectest_test

import (
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/mmrun/mmrun/rewriter"
)

// Each call of the suite is one that could be left: two versions of each function, and all
// assertions hold. That leaving and coming back changes nothing is tested with programs (package
// rewriter).
func TestSpecWithPlacesToLeave(t *testing.T) {
	run(t, "d (suspend everywhere)", 2, atLeastV2, func(_ testing.TB, rt wazero.Runtime) machine {
		return rewritten{plain{rt}, rewriter.Options{SuspendEverywhere: true}}
	})
}
