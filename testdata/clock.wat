;; A guest that keeps what it was told of the time.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (memory (export "memory") 1)
  (global $worst (mut i64) (i64.const 0))
  (global $last (mut i64) (i64.const 0))

  ;; now() reads the monotonic clock, and notes the worst step back that it has seen.
  (func $now (export "now") (result i64)
    (local $t i64)
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 8)))
    (local.set $t (i64.load (i32.const 8)))
    (if (i64.lt_s (i64.sub (local.get $t) (global.get $last)) (global.get $worst))
      (then (global.set $worst (i64.sub (local.get $t) (global.get $last)))))
    (global.set $last (local.get $t))
    (local.get $t))
  (func $start (drop (call $now)))
  (start $start)
  (func (export "worst") (result i64) (global.get $worst))
  (func (export "last") (result i64) (global.get $last)))
