package realguests

import (
	"testing"

	"github.com/tetratelabs/wazero"
)

// quickJSGuest is QuickJS through the raw exports of its module. Each event evaluates a script.
func quickJSGuest() *guest {
	eval := func(code, want string) event {
		return event{func(s *session) (string, error) { return s.eval(code), nil }, want}
	}
	return &guest{
		name: "quickjs",
		wasm: func(tb testing.TB) []byte {
			return readFile(tb, moduleFile(tb, "github.com/fastschema/qjs", "qjs.wasm"))
		},
		host: func(rt wazero.Runtime, _ *world) error {
			return hostModule(rt, "env", map[string]string{"jsFunctionProxy": "iIii:I"}, nil)
		},
		events: []event{
			{func(s *session) (string, error) {
				js := s.call("New_QJS", 0, 0, 0, 0)
				s.remember(map[string]uint64{"context": s.call("QJS_GetContext", js)})
				return s.eval("6 * 7"), nil
			}, "42"},
			eval("var total = 0; var words = new Map(); var add = (() => { let n = 0; return k "+
				"=> n += k })(); total", "0"),
			eval("function* walk() { let a = 0, b = 1; for (;;) { const x = yield a; [a, b] = "+
				"[b, a + b]; if (x) a += x } }"+
				"var walker = walk(); walker.next().value", "0"),
			eval("add(5); add(7)", "12"),
			eval("for (let i = 0; i < 20000; i++) words.set('k' + i, { i, text: 'x'.repeat(i % "+
				"40) }); words.size", "20000"),
			eval("walker.next(); walker.next(); walker.next(); walker.next().value", "3"),
			eval("for (let i = 0; i < 20000; i += 3) words.delete('k' + i); words.size", "13333"),
			eval("Math.random() < 1 && Math.random()", ""),
			eval("add(8)", "20"),
			eval("try { null.x } catch (e) { e instanceof TypeError }", "true"),
			eval("walker.next(100).value", "105"),
			eval("new Date().toISOString()", "2023-11-14T22:13:32.000Z"),
			eval("var waiting = []; var p = new Promise(r => waiting.push(r)).then(x => total = "+
				"x); waiting.length", "1"),
			eval("class Stack { #items = []; push(x) { this.#items.push(x); return this } get "+
				"top() { return this.#items.at(-1) } }"+
				"var stack = new Stack().push(1).push(big = 2n ** 200n); stack.top % 1000n", "376"),
			eval("[...words.values()].reduce((n, w) => n + w.text.length, 0)", ""),
			eval("walker.next().value + add(1)", ""),
			eval("JSON.stringify([...words.keys()].slice(0, 3).concat(String(stack.top % 7n)))",
				""),
		},
		small: func(s *session, i uint64) { s.eval("words.get('k2').i = add(1)") },
	}
}

// eval evaluates a script in the global scope and gives its value as a string.
func (s *session) eval(code string) string {
	const global = 0
	context := s.recall()["context"]
	source := s.cstring("malloc", code)
	file := s.cstring("malloc", "event.js")
	options := s.call("QJS_CreateEvalOption", source, 0, 0, file, global)
	value := s.call("QJS_Eval", context, options)
	if s.call("JS_HasException", context) != 0 {
		value = s.call("JS_GetException", context)
		s.fail("%s: %s", code, s.javaScriptString(context, value))
	}
	text := s.javaScriptString(context, value)
	s.call("QJS_FreeValue", context, value)
	for _, at := range []uint64{source, file, options} {
		s.call("free", at)
	}
	return text
}

// javaScriptString reads what QJS_ToCString gives: the address of an address and a length.
func (s *session) javaScriptString(context, value uint64) string {
	at := s.call("QJS_ToCString", context, value)
	text := s.text(s.word(at + 4))
	s.call("JS_FreeCString", context, s.word(at+4))
	s.call("free", at)
	return text
}
