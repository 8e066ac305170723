;; Refused: the table belongs to somebody else, and the guest changes it.
(module $imported_table
  (import "env" "table" (table $t 1 funcref))
  (func $one (result i32) (i32.const 1))
  (elem declare func $one)
  (func (export "set")
    (table.set $t (i32.const 0) (ref.func $one)))
  (func (export "call") (result i32)
    (call_indirect $t (result i32) (i32.const 0))))
