package peers

import (
	"errors"
	"os/exec"
	"strings"
)

// criuPeers: a dump of a whole process. This program asks CRIU whether the kernel lets it work, and
// gives its answer as the reason why it does not take part. Where it works it is still not driven:
// no kernel at hand could show that a dump of it would be right.
func criuPeers() []Peer {
	return []Peer{{Name: "CRIU full dump", Safety: Kill, Slow: true, CopyBased: true,
		Settings: "criu dump --leave-running of a process with plain wazero",
		Missing:  criuCheck}}
}

func criuCheck() error {
	if _, err := exec.LookPath("criu"); err != nil {
		return err
	}
	out, err := exec.Command("criu", "check").CombinedOutput()
	if err == nil {
		return errors.New("criu check passes, but this program does not drive it")
	}
	return errors.New("criu check: " + strings.Join(strings.Split(strings.TrimSpace(string(out)),
		"\n"), "; "))
}
