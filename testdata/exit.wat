;; An event that ends the process, as the guest sees it, with half its work done.
(module $exit
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param $code i32)))
  (memory (export "memory") 1 16)
  (global $n (mut i32) (i32.const 0))

  ;; modify adds 1 to a global and to the i32 at 0.
  (func $modify (export "modify")
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))

  ;; exit does the same, and then does not return.
  (func (export "exit") (param $code i32)
    (call $modify)
    (call $proc_exit (local.get $code)))

  (func (export "get_global") (result i32) (global.get $n))
  (func (export "get_memory") (result i32) (i32.load (i32.const 0))))
