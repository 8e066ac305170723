package spectest_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mmrun/mmrun/internal/testkit/spectest"
)

// machine runs modules in one of several ways. It serves one script.
type machine interface {
	// load makes an instance, under a name if other modules are to import from it. If the machine
	// cannot run the module its own way, it runs it on plain wazero, and the subject's exception
	// says why.
	load(wasm []byte, registerAs string) (subject, error)
	// rewrites tells whether it rewrites modules: the list of exceptions is about those.
	rewrites() bool
}

// subject is an instance of a module.
type subject interface {
	invoke(function string, args []uint64) ([]uint64, error)
	get(global string) (uint64, error)
	exception() string // why this is a plain instance that is never resumed; empty if it is not
}

// Reasons for exceptions.
const (
	textFormat   = "a module in the text format, which wazero does not read"
	newerVersion = "invalid in WebAssembly 1.0, valid in 2.0, which a rewritten module needs"
	laterMeaning = "means something else in WebAssembly 2.0: an instantiation that fails keeps " +
		"the segments written before"
)

// exceptions are the assertions that do not hold after the rewrite.
var exceptions = map[string]string{
	"v1/linking.wast:236": laterMeaning,
	"v1/linking.wast:248": laterMeaning,
	"v1/linking.wast:342": laterMeaning,
	"v1/linking.wast:354": laterMeaning,
}

// tally counts the assertions of a run.
type tally struct {
	mu         sync.Mutex
	assertions int
	passed     int
	excepted   map[string]int // by reason
}

func (c *tally) count(passed bool, exception string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.assertions++
	switch {
	case exception != "":
		if c.excepted == nil {
			c.excepted = map[string]int{}
		}
		c.excepted[exception]++
	case passed:
		c.passed++
	}
}

func (c *tally) exceptions() (n int) {
	for _, k := range c.excepted {
		n += k
	}
	return n
}

// report says what the run did. Every assertion is in exactly one of its numbers.
func (c *tally) report(t *testing.T, run string) {
	t.Logf("spec: run %s: %d assertions, %d passed, %d excepted, %d failed",
		run, c.assertions, c.passed, c.exceptions(), c.assertions-c.passed-c.exceptions())
	reasons := slices.SortedFunc(maps.Keys(c.excepted), func(a, b string) int {
		return cmp.Or(c.excepted[b]-c.excepted[a], strings.Compare(a, b))
	})
	for _, reason := range reasons {
		t.Logf("spec: run %s: %5d excepted: %s", run, c.excepted[reason], reason)
	}
}

// runner runs one script. An assertion on a plain instance is checked like any other, but counts
// as excepted.
type runner struct {
	script  *spectest.Script
	machine machine
	errorf  func(format string, args ...any) // what to do with a failure
	// modules as they are with more features than the suite is for; nil if there are none more
	wider *plain
	tally *tally
	max   int // failures to report; 0 means all

	failures int
	current  subject
	named    map[string]subject
}

func (r *runner) run() {
	r.named = map[string]subject{}
	commands := r.script.Commands
	for i := range commands {
		c := &commands[i]
		registerAs := ""
		if c.Type == "module" && i+1 < len(commands) && commands[i+1].Type == "register" {
			registerAs = commands[i+1].As
		}
		exception, err := r.command(c, registerAs)
		at := fmt.Sprintf("%s/%s.wast:%d", r.script.Suite.Name, r.script.Name, c.Line)
		if reason, ok := exceptions[at]; ok && r.machine.rewrites() {
			if err == nil {
				r.errorf("%s: it holds, and is listed as an exception", at)
			}
			exception, err = reason, nil
		}
		if c.IsAssertion() {
			r.tally.count(err == nil, exception)
		}
		if err != nil {
			r.failures++
			if r.max == 0 || r.failures <= r.max {
				r.errorf("%s: %s %s: %v", at, c.Type, c.Action.Field, err)
			}
		}
		if err != nil && c.Type == "module" {
			return // nothing that follows would mean anything
		}
	}
}

// command runs one command. The exception says why an assertion was not checked the machine's own
// way.
func (r *runner) command(c *spectest.Command, registerAs string) (exception string, err error) {
	switch c.Type {
	case "module":
		wasm, err := r.script.Module(c)
		if err != nil {
			return "", err
		}
		s, err := r.machine.load(wasm, registerAs)
		if err != nil {
			return "", err
		}
		r.current = s
		if c.Name != "" {
			r.named[c.Name] = s
		}
		return "", nil
	case "register":
		return "", nil // a module knows its name from the start
	case "assert_malformed", "assert_invalid", "assert_unlinkable", "assert_uninstantiable":
		return r.refusal(c)
	}
	s := r.current
	if c.Action.Module != "" {
		s = r.named[c.Action.Module]
	}
	if s == nil {
		return "", fmt.Errorf("no module %q", c.Action.Module)
	}
	err = r.action(c, s)
	return s.exception(), err
}

// refusal checks that a module cannot be instantiated.
func (r *runner) refusal(c *spectest.Command) (exception string, err error) {
	if c.ModuleType == "text" {
		return textFormat, nil
	}
	wasm, err := r.script.Module(c)
	if err != nil {
		return "", err
	}
	s, err := r.machine.load(wasm, "")
	if c.Type == "assert_uninstantiable" && c.Text == "out of bounds table access" {
		// wazero lets such a module live, with the segments before the one that does not fit.
		// Rewritten it fails, as it must.
		if err == nil {
			exception = s.exception()
		}
		if !r.machine.rewrites() || exception != "" {
			return exception, err
		}
	}
	if err == nil {
		if r.wider != nil {
			if in, err := r.wider.live(wasm, "", ""); err == nil {
				return newerVersion, in.mod.Close(ctx)
			}
		}
		return "", fmt.Errorf("it was accepted, want: %s", c.Text)
	}
	var on *onPlainWazero
	if errors.As(err, &on) && (c.Type == "assert_unlinkable" || c.Type == "assert_uninstantiable") {
		// Refused, but for another reason than the one meant. Of a module that is not even valid
		// any refusal will do.
		exception = on.because
	}
	return exception, nil
}

func (r *runner) action(c *spectest.Command, s subject) error {
	var args []uint64
	for i := range c.Action.Args {
		bits, err := c.Action.Args[i].Bits()
		if err != nil {
			return err
		}
		args = append(args, bits...)
	}
	var results []uint64
	var err error
	switch c.Action.Type {
	case "invoke":
		results, err = s.invoke(c.Action.Field, args)
	case "get":
		var v uint64
		v, err = s.get(c.Action.Field)
		results = []uint64{v}
	default:
		return fmt.Errorf("unknown action %q", c.Action.Type)
	}
	switch c.Type {
	case "action":
		return err
	case "assert_return":
		if err != nil {
			return err
		}
		return compare(c.Expected, results)
	case "assert_trap", "assert_exhaustion", "assert_exception":
		want := trap(c)
		if err == nil {
			return fmt.Errorf("it gave %v, want the trap %q", results, want)
		}
		if want == "" || !strings.Contains(err.Error(), want) {
			return fmt.Errorf("%w, want the trap %q", err, want)
		}
		return nil
	}
	return fmt.Errorf("unknown command %q", c.Type)
}

func compare(expected []spectest.Value, results []uint64) error {
	rest := results
	for i := range expected {
		v := &expected[i]
		if len(rest) < v.Slots() {
			return fmt.Errorf("%d values came back, want more", len(results))
		}
		ok, err := v.Matches(rest)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("result %d is %#x, want %s %s", i, rest[:v.Slots()], v.Type, v.Value)
		}
		rest = rest[v.Slots():]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d values too many came back", len(rest))
	}
	return nil
}

// trap is what wazero calls the trap that a command expects.
func trap(c *spectest.Command) string {
	switch c.Type {
	case "assert_exhaustion":
		return "stack overflow"
	case "assert_exception":
		return "uncaught exception"
	}
	switch c.Text {
	case "indirect call type mismatch", "indirect call":
		return "indirect call type mismatch"
	case "undefined element", "undefined", "out of bounds table access":
		return "invalid table access"
	case "null", "null reference", "null function reference", "null function":
		return "null reference"
	case "expected shared memory", "out of bounds memory access", "integer overflow",
		"invalid conversion to integer",
		"integer divide by zero", "unaligned atomic", "unreachable", "uncaught exception":
		return c.Text
	}
	if strings.HasPrefix(c.Text, "uninitialized") {
		return "invalid table access"
	}
	return ""
}

var ctx = context.Background()
