;; A table that holds an imported function beside one of the module's own, and can exchange them.
(module $hosttable
  (type $op (func (param i32) (result i32)))
  (import "env" "op" (func $host (type $op)))
  (func $double (type $op) (i32.mul (local.get 0) (i32.const 2)))
  (table $ops 2 2 funcref)
  (elem (i32.const 0) $host $double)
  (memory (export "memory") 1 1)

  (func (export "swap")
    (local $first funcref)
    (local.set $first (table.get $ops (i32.const 0)))
    (table.set $ops (i32.const 0) (table.get $ops (i32.const 1)))
    (table.set $ops (i32.const 1) (local.get $first)))
  (func (export "call") (param $slot i32) (param $x i32) (result i32)
    (call_indirect (type $op) (local.get $x) (local.get $slot))))
