;; Lets the host change guest memory in the middle of an event, and fail.
(module $hostmut
  (import "env" "mutate" (func $mutate (param $ptr i32) (param $len i32)))
  (import "env" "fail" (func $fail))
  (memory (export "memory") 16 1024)
  (global $calls (mut i32) (i32.const 0))

  ;; mutate hands len bytes at ptr to the host.
  (func (export "mutate") (param $ptr i32) (param $len i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (call $mutate (local.get $ptr) (local.get $len)))

  ;; fail changes memory and the global, lets the host change memory too, and then calls the host
  ;; function that answers with an error.
  (func (export "fail") (param $ptr i32) (param $len i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store (i32.const 0) (i32.const -1))
    (call $mutate (local.get $ptr) (local.get $len))
    (call $fail))

  (func (export "calls") (result i32) (global.get $calls))
  (func (export "load") (param $addr i32) (result i32)
    (i32.load8_u (local.get $addr))))
