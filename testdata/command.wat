;; A command: its main function is not meant to be run twice, and nothing in it would notice.
(module $command
  (memory (export "memory") 1 16)
  (global $runs (mut i32) (i32.const 0))

  ;; _start does what a C library's does: it runs the constructors, which reset a variable, then main.
  (func $main (export "_start") (export "main")
    (i32.store (i32.const 0) (i32.const 0))
    (global.set $runs (i32.add (global.get $runs) (i32.const 1))))

  ;; runs tells how often main ran.
  (func (export "runs") (result i32) (global.get $runs))

  ;; add changes the variable, which a second run of the constructors would reset.
  (func (export "add") (param $n i32) (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (local.get $n)))
    (i32.load (i32.const 0))))
