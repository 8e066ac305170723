;; Refused as soon as it has taken a reference: a host's value means nothing in another process.
;; Until one of the take functions is called all of it is null.
(module $externref
  (import "env" "ref" (func $ref (result externref)))
  (memory (export "memory") 1 1)
  (table $t 1 externref)
  (global $g (mut externref) (ref.null extern))

  (func (export "take_global") (global.set $g (call $ref)))
  (func (export "take_table") (table.set $t (i32.const 0) (call $ref)))
  (func (export "drop")
    (global.set $g (ref.null extern))
    (table.set $t (i32.const 0) (ref.null extern)))
  (func (export "is_null") (result i32)
    (i32.and
      (ref.is_null (global.get $g))
      (ref.is_null (table.get $t (i32.const 0))))))
