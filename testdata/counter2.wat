;; The next build of counter: it has another global, and can do more.
(module
  (global $step (mut i32) (i32.const 5))
  (global $n (mut i32) (i32.const 0))
  (memory (export "memory") 1)
  (data (i32.const 16) "new data")
  (func (export "inc") (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (global.get $n))
  (func (export "leap") (result i32)
    (global.set $n (i32.add (global.get $n) (global.get $step)))
    (global.get $n))
  (func (export "get") (result i32) (global.get $n))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0))))
