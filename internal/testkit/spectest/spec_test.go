package spectest_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/mmrun/mmrun"
	"github.com/mmrun/mmrun/internal/testkit/spectest"
)

// The oracle itself: what the scripts say, on modules as they are.
func TestSpecOriginal(t *testing.T) {
	run(t, "a (as it is)", 1, asSuite,
		func(_ testing.TB, rt wazero.Runtime) machine {
			return plain{rt}
		})
}

func TestSpecRewritten(t *testing.T) {
	run(t, "b (rewritten)", 1, atLeastV2,
		func(_ testing.TB, rt wazero.Runtime) machine {
			return rewritten{plain: plain{rt}}
		})
}

func TestSpecReopenedBetweenAnyTwoCommands(t *testing.T) {
	run(t, "c (reopened, atomic)", 1, atLeastV2, func(t testing.TB, rt wazero.Runtime) machine {
		return &persisted{plain: plain{rt}, t: t, dir: memoryDir(t), mode: mmrun.Atomic}
	})
}

// Here the state is not closed, and each command but the first recovers what the wal holds. It
// takes long, so it is for a part of the scripts.
func TestSpecRecoveredBetweenAnyTwoCommands(t *testing.T) {
	run(t, "c (recovered, atomic)", 16, atLeastV2, func(t testing.TB, rt wazero.Runtime) machine {
		return &persisted{plain: plain{rt}, t: t, dir: memoryDir(t), mode: mmrun.Atomic, kill: true}
	})
}

// The guest tells what it writes: each store of the suite goes through a check, and what was not
// told would be missing from what the next command finds.
func TestSpecTellsWhatItWrites(t *testing.T) {
	run(t, "c (recovered, barrier)", 8, atLeastV2, func(t testing.TB, rt wazero.Runtime) machine {
		return &persisted{plain: plain{rt}, t: t, dir: memoryDir(t), mode: mmrun.Atomic, kill: true,
			how: mmrun.Barrier}
	})
}

// What differs from atomic mode is little, so a part of the scripts is enough.
func TestSpecReopenedContinuous(t *testing.T) {
	run(t, "c (reopened, continuous)", 4, atLeastV2, func(t testing.TB, rt wazero.Runtime) machine {
		return &persisted{plain: plain{rt}, t: t, dir: memoryDir(t), mode: mmrun.Continuous}
	})
}

// asSuite and atLeastV2 say what a runtime must be able to do.
func asSuite(f api.CoreFeatures) api.CoreFeatures { return f }

// A rewritten module needs passive data segments and references.
func atLeastV2(f api.CoreFeatures) api.CoreFeatures { return f | api.CoreFeaturesV2 }

// run runs one script in every so many (with -short one in sixteen), each in a runtime and a
// machine of its own.
func run(t *testing.T, name string, every int, features func(api.CoreFeatures) api.CoreFeatures,
	newMachine func(testing.TB, wazero.Runtime) machine) {
	dir := wazeroDir(t)
	host, err := spectest.Host(dir)
	if err != nil {
		t.Fatal(err)
	}
	if testing.Short() {
		every = 16
	}
	total, scripts, chosen := &tally{}, 0, 0
	t.Run("scripts", func(t *testing.T) {
		for _, suite := range spectest.Suites {
			list, err := suite.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, script := range list {
				if scripts++; scripts%every != 0 {
					continue
				}
				chosen++
				t.Run(suite.Name+"/"+script.Name, func(t *testing.T) {
					t.Parallel()
					rt := newRuntime(t, features(suite.Features), host)
					r := &runner{script: script, machine: newMachine(t, rt), errorf: t.Errorf,
						tally: total, max: 5}
					if features(suite.Features) != suite.Features {
						r.wider = &plain{rt}
					}
					r.run()
				})
			}
		}
	})
	t.Logf("spec: run %s: %d of %d scripts", name, chosen, scripts)
	total.report(t, name)
	if total.passed == 0 {
		t.Error("no assertion has passed")
	}
}

func newRuntime(t testing.TB, features api.CoreFeatures, host []byte) wazero.Runtime {
	rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features))
	t.Cleanup(func() { rt.Close(ctx) })
	if _, err := rt.InstantiateWithConfig(ctx, host,
		wazero.NewModuleConfig().WithName("spectest")); err != nil {
		t.Fatal(err)
	}
	return rt
}

// memoryDir is a directory of the test's own, in memory if there is such a file system: each of
// some ten thousand states is synced when it is closed.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "mmrun-spec-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func wazeroDir(t testing.TB) string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}",
		"github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return strings.TrimSpace(string(out))
}
