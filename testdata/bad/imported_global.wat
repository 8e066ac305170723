;; Refused: the mutable global belongs to somebody else.
(module $imported_global
  (import "env" "n" (global $n (mut i32)))
  (func (export "inc") (result i32)
    (global.set $n (i32.add (global.get $n) (i32.const 1)))
    (global.get $n)))
