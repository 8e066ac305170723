;; What must happen once in the life of a state: data segments and the start function.
;;
;;   address   content when the module has been instantiated once
;;   0         "AAAABBBBBBBB": the second segment overlaps the tail of the first
;;   1024      i32 100, from a segment; the start function adds 1: 101
;;   2048      i32 0, from no segment;  the start function adds 1: 1
;;   65532     "tail", the last bytes of the first wasm page
;;
;; A segment of length 0 at the very end of memory is there because it must not trap.
(module $start
  (memory (export "memory") 1 16)
  (global $starts (mut i32) (i32.const 0))

  (data $first (i32.const 0) "AAAAAAAA")
  (data $second (i32.const 4) "BBBBBBBB")
  (data $counter (i32.const 1024) "\64\00\00\00")
  (data $tail (i32.const 65532) "tail")
  (data $empty (i32.const 65536) "")

  (func $start
    (global.set $starts (i32.add (global.get $starts) (i32.const 1)))
    (i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
    (i32.store (i32.const 2048) (i32.add (i32.load (i32.const 2048)) (i32.const 1))))
  (start $start)

  ;; How often the start function ran, as the global and the memory remember it.
  (func (export "starts_global") (result i32) (global.get $starts))
  (func (export "starts_memory") (result i32) (i32.load (i32.const 2048)))

  ;; counter began as 101; inc makes a replay of its segment visible.
  (func (export "counter") (result i32) (i32.load (i32.const 1024)))
  (func (export "inc") (result i32)
    (i32.store (i32.const 1024) (i32.add (i32.load (i32.const 1024)) (i32.const 1)))
    (i32.load (i32.const 1024)))

  (func (export "read") (param $addr i32) (result i32)
    (i32.load8_u (local.get $addr)))
  (func (export "write") (param $addr i32) (param $byte i32)
    (i32.store8 (local.get $addr) (local.get $byte)))

  ;; overwrite fills everything that a segment has written.
  (func (export "overwrite") (param $byte i32)
    (memory.fill (i32.const 0) (local.get $byte) (i32.const 12))
    (memory.fill (i32.const 1024) (local.get $byte) (i32.const 4))
    (memory.fill (i32.const 65532) (local.get $byte) (i32.const 4))))
