package main

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mmrun/mmrun/bench/ratios"
	"github.com/mmrun/mmrun/bench/report"
)

// machine describes where this runs; dir is where the files go.
func machine(dir string) (report.Machine, error) {
	m := report.Machine{Kernel: ratios.Kernel(), FileSystem: ratios.FileSystem(dir),
		Processors: runtime.NumCPU(), Versions: versions()}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, err
	}
	m.MemoryMiB = int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return m, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok &&
			strings.TrimSpace(name) == "model name" {
			m.Model = strings.TrimSpace(value)
			break
		}
	}
	return m, nil
}

// versions are those of the modules that this program was built with, and of the programs it
// starts.
func versions() map[string]string {
	all := map[string]string{"Go": strings.TrimPrefix(runtime.Version(), "go")}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			for _, peer := range []string{"wazero", "sqlite", "bbolt", "pebble", "badger", "redigo",
				"wasmtime-go"} {
				if strings.Contains(m.Path, peer) {
					all[m.Path] = m.Version
				}
			}
		}
	}
	for name, args := range map[string][]string{"redis-server": {"--version"},
		"criu": {"--version"}} {
		if out, err := exec.Command(name, args...).Output(); err == nil {
			line, _, _ := strings.Cut(string(out), "\n")
			all[name] = strings.TrimSpace(line)
		}
	}
	return all
}
