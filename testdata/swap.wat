;; The state that is neither memory nor a number: table contents and sizes, dropped segments, a
;; funcref global and a v128 global. All of it is private but the memory.
(module $swap
  (type $op (func (param i32) (result i32)))

  (func $double (type $op) (i32.mul (local.get 0) (i32.const 2)))
  (func $negate (type $op) (i32.sub (i32.const 0) (local.get 0)))
  (func $square (type $op) (i32.mul (local.get 0) (local.get 0)))
  (func $increment (type $op) (i32.add (local.get 0) (i32.const 1)))

  (memory (export "memory") 1 1)

  ;; At first: double, negate, null, null. Nobody outside can see it.
  (table $ops 4 16 funcref)
  (elem (table $ops) (i32.const 0) func $double $negate)
  ;; A second table, at first: null, square.
  (table $spare 2 funcref)
  (elem (table $spare) (i32.const 1) func $square)

  (elem $more func $square $increment)
  (data $text "passive!")

  (global $op (mut funcref) (ref.null func))
  (global $v (mut v128) (v128.const i64x2 0 0))

  ;; swap exchanges the first two entries of ops.
  (func (export "swap")
    (local $first funcref)
    (local.set $first (table.get $ops (i32.const 0)))
    (table.set $ops (i32.const 0) (table.get $ops (i32.const 1)))
    (table.set $ops (i32.const 1) (local.get $first)))

  ;; call applies entry 0 of ops to x, call_at and call_spare another one. A null entry traps.
  (func (export "call") (param $x i32) (result i32)
    (call_indirect $ops (type $op) (local.get $x) (i32.const 0)))
  (func (export "call_at") (param $slot i32) (param $x i32) (result i32)
    (call_indirect $ops (type $op) (local.get $x) (local.get $slot)))
  (func (export "call_spare") (param $slot i32) (param $x i32) (result i32)
    (call_indirect $spare (type $op) (local.get $x) (local.get $slot)))

  ;; Every other way to change a table.
  (func (export "table_size") (result i32) (table.size $ops))
  (func (export "table_grow") (param $n i32) (result i32)
    (table.grow $ops (ref.func $increment) (local.get $n)))
  (func (export "table_fill") (param $slot i32) (param $n i32)
    (table.fill $ops (local.get $slot) (ref.func $negate) (local.get $n)))
  (func (export "table_copy") (param $dst i32) (param $src i32) (param $n i32)
    (table.copy $ops $spare (local.get $dst) (local.get $src) (local.get $n)))
  (func (export "set_null") (param $slot i32)
    (table.set $ops (local.get $slot) (ref.null func)))
  (func (export "is_null") (param $slot i32) (result i32)
    (ref.is_null (table.get $ops (local.get $slot))))

  ;; The passive element segment: square, increment. elem_init traps once it has been dropped.
  (func (export "elem_init") (param $dst i32) (param $src i32) (param $n i32)
    (table.init $ops $more (local.get $dst) (local.get $src) (local.get $n)))
  (func (export "elem_drop") (elem.drop $more))

  ;; The passive data segment: "passive!". data_init traps once it has been dropped.
  (func (export "data_init") (param $dst i32) (param $src i32) (param $n i32)
    (memory.init $text (local.get $dst) (local.get $src) (local.get $n)))
  (func (export "data_drop") (data.drop $text))
  (func (export "load") (param $addr i32) (result i32)
    (i32.load8_u (local.get $addr)))

  ;; The funcref global: keep takes it from ops, call_kept applies it by way of entry 0 of spare,
  ;; which is as before afterwards.
  (func (export "keep") (param $slot i32)
    (global.set $op (table.get $ops (local.get $slot))))
  (func (export "kept_is_null") (result i32)
    (ref.is_null (global.get $op)))
  (func (export "call_kept") (param $x i32) (result i32)
    (local $saved funcref)
    (local.set $saved (table.get $spare (i32.const 0)))
    (table.set $spare (i32.const 0) (global.get $op))
    (call_indirect $spare (type $op) (local.get $x) (i32.const 0))
    (table.set $spare (i32.const 0) (local.get $saved)))

  ;; The v128 global, by its lanes.
  (func (export "set_lanes") (param $low i64) (param $high i64)
    (global.set $v
      (i64x2.replace_lane 1
        (i64x2.splat (local.get $low))
        (local.get $high))))
  (func (export "get_lanes") (result i64 i64)
    (i64x2.extract_lane 0 (global.get $v))
    (i64x2.extract_lane 1 (global.get $v)))
  (func (export "get_v128") (result v128) (global.get $v)))
