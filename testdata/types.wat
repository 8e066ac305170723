;; Every value type in and out, and every way to fail.
(module $types
  (memory (export "memory") 16 64)
  (global $g32 (mut i32) (i32.const 0))
  (global $g64 (mut i64) (i64.const 0))
  (global $gf32 (mut f32) (f32.const 0))
  (global $gf64 (mut f64) (f64.const 0))

  ;; Identities, one for each value type.
  (func (export "i32") (param i32) (result i32) (local.get 0))
  (func (export "i64") (param i64) (result i64) (local.get 0))
  (func (export "f32") (param f32) (result f32) (local.get 0))
  (func (export "f64") (param f64) (result f64) (local.get 0))
  (func (export "v128") (param v128) (result v128) (local.get 0))

  ;; No, several and mixed parameters and results.
  (func (export "none"))
  (func (export "add") (param i32 i32) (result i32)
    (i32.add (local.get 0) (local.get 1)))
  (func (export "swap") (param i32 i64) (result i64 i32)
    (local.get 1) (local.get 0))
  (func (export "reverse") (param i32 i64 f32 f64) (result f64 f32 i64 i32)
    (local.get 3) (local.get 2) (local.get 1) (local.get 0))
  (func (export "reverse_v128") (param i32 v128 i64) (result i64 v128 i32)
    (local.get 2) (local.get 1) (local.get 0))
  (func (export "limits") (result i32 i32 i64 i64)
    (i32.const 0x80000000) (i32.const 0x7fffffff)
    (i64.const 0x8000000000000000) (i64.const 0x7fffffffffffffff))
  (func (export "specials") (result f32 f32 f64 f64 f64)
    (f32.const nan) (f32.const -inf)
    (f64.const -0) (f64.const inf) (f64.const 0x1p-1074))

  ;; Globals of the four numeric types, all private.
  (func (export "set_globals") (param i32 i64 f32 f64)
    (global.set $g32 (local.get 0))
    (global.set $g64 (local.get 1))
    (global.set $gf32 (local.get 2))
    (global.set $gf64 (local.get 3)))
  (func (export "get_globals") (result i32 i64 f32 f64)
    (global.get $g32) (global.get $g64) (global.get $gf32) (global.get $gf64))

  ;; modify adds 1 to an i64 in each of the first n 4 KiB pages and to the globals.
  (func $modify (export "modify") (param $n i32)
    (local $i i32)
    (local $addr i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (local.get $n)))
        (local.set $addr (i32.mul (local.get $i) (i32.const 4096)))
        (i64.store (local.get $addr)
          (i64.add (i64.load (local.get $addr)) (i64.const 1)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (global.set $g32 (i32.add (global.get $g32) (i32.const 1)))
    (global.set $g64 (i64.add (global.get $g64) (i64.const 1)))
    (global.set $gf32 (f32.add (global.get $gf32) (f32.const 1)))
    (global.set $gf64 (f64.add (global.get $gf64) (f64.const 1))))
  (func (export "load") (param $addr i32) (result i64)
    (i64.load (local.get $addr)))
  (func (export "store") (param $addr i32) (param $v i64)
    (i64.store (local.get $addr) (local.get $v)))
  (func (export "size") (result i32) (memory.size))
  (func $grow (export "grow") (param $pages i32) (result i32)
    (memory.grow (local.get $pages)))

  ;; The traps. oob reads just past the end of memory.
  (func (export "unreachable") (unreachable))
  (func (export "div") (param i32 i32) (result i32)
    (i32.div_s (local.get 0) (local.get 1)))
  (func (export "trunc") (param f64) (result i32)
    (i32.trunc_f64_s (local.get 0)))
  (func (export "oob") (result i32)
    (i32.load (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 3))))
  (func $recurse (export "recurse") (result i32)
    (i32.add (call $recurse) (i32.const 1)))

  ;; Traps that leave half an event behind: modified pages and globals, or a grown memory.
  (func (export "trap_after") (param $n i32)
    (call $modify (local.get $n))
    (unreachable))
  (func (export "trap_after_grow") (param $pages i32)
    (drop (call $grow (local.get $pages)))
    ;; The last 8 bytes, wherever the memory ends now.
    (i64.store
      (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 8))
      (i64.const -1))
    (call $modify (i32.const 1))
    (unreachable))

  ;; An endless loop that stores nothing, and one that never stops storing.
  (func (export "spin")
    (loop $again (br $again)))
  (func (export "spin_storing")
    (loop $again
      (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
      (global.set $g64 (i64.add (global.get $g64) (i64.const 1)))
      (br $again))))
