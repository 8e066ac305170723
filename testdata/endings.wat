;; An event that ends in every way there is, with half its work done when it does.
(module $endings
  (import "env" "end" (func $end (param $how i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param $code i32)))
  (memory (export "memory") 3 16)
  (global $n (mut i32) (i32.const 0))

  ;; step adds 1 to a global and to the i32 at 0 and at 131072, then asks the host, then ends as
  ;; told: 1 traps, 2 exits with 0, 3 with 7, 4 grows the memory and traps, anything else returns.
  (func (export "step") (param $how i32) (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (i32.store (i32.const 131072) (i32.add (i32.load (i32.const 131072)) (i32.const 1)))
    (call $end (local.get $how))
    (if (i32.eq (local.get $how) (i32.const 1)) (then (unreachable)))
    (if (i32.eq (local.get $how) (i32.const 2)) (then (call $proc_exit (i32.const 0))))
    (if (i32.eq (local.get $how) (i32.const 3)) (then (call $proc_exit (i32.const 7))))
    (if (i32.eq (local.get $how) (i32.const 4)) (then
      (drop (memory.grow (i32.const 1)))
      (i32.store (i32.const 196608) (i32.const 1))
      (unreachable)))
    (global.get $n))

  ;; get is the global if the two places in memory hold the same number, and -1 if they do not.
  (func (export "get") (result i32)
    (if (i32.ne (global.get $n) (i32.load (i32.const 0))) (then (return (i32.const -1))))
    (if (i32.ne (global.get $n) (i32.load (i32.const 131072))) (then (return (i32.const -1))))
    (if (i32.ne (memory.size) (i32.const 3)) (then (return (i32.const -2))))
    (global.get $n)))
