;; Tables that the code changes in every way there is, a private funcref global, element segments.
(module
  (type $answer (func (result i32)))
  (import "env" "hundred" (func $hundred (type $answer)))
  (table $fixed 1 1 funcref)               ;; 0: nothing changes it
  (table $t (export "t") 4 10 funcref)     ;; 1
  (table $other 2 funcref)                 ;; 2: only table.copy reads it, table.init writes it
  (table $hosts 1 5 externref)             ;; 3
  (elem (table $fixed) (i32.const 0) func $one)
  (elem (table $t) (i32.const 0) func $one $two $hundred)
  (elem $spare func $two $three)
  (elem $empty func)
  (elem declare func $three)
  (global $favourite (mut funcref) (ref.func $two))
  (global $host (mut externref) (ref.null extern))
  (func $one (type $answer) (i32.const 1))
  (func $two (type $answer) (i32.const 2))
  (func $three (type $answer) (i32.const 3))
  (func (export "call") (param i32) (result i32) (call_indirect $t (type $answer) (local.get 0)))
  (func (export "call_other") (param i32) (result i32) (call_indirect $other (type $answer) (local.get 0)))
  (func (export "call_fixed") (result i32) (call_indirect $fixed (type $answer) (i32.const 0)))
  (func (export "swap") (param i32 i32) (local funcref)
    (local.set 2 (table.get $t (local.get 0)))
    (table.set $t (local.get 0) (table.get $t (local.get 1)))
    (table.set $t (local.get 1) (local.get 2)))
  (func (export "grow") (param i32) (result i32) (table.grow $t (ref.func $three) (local.get 0)))
  (func (export "clear") (param i32) (table.fill $t (local.get 0) (ref.null func) (i32.const 1)))
  (func (export "init") (param i32) (table.init $other $spare (i32.const 0) (i32.const 0) (local.get 0)))
  (func (export "init_empty") (table.init $other $empty (i32.const 0) (i32.const 0) (i32.const 0)))
  (func (export "drop") (elem.drop $spare) (elem.drop $empty))
  (func (export "copy") (table.copy $t $other (i32.const 0) (i32.const 0) (i32.const 2)))
  (func (export "like") (param i32) (global.set $favourite (table.get $t (local.get 0))))
  (func (export "set_host") (param i32 externref) (table.set $hosts (local.get 0) (local.get 1)))
  (func (export "set_host_global") (param externref) (global.set $host (local.get 0))))
