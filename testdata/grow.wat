;; A memory that grows: one wasm page at first, at most 1024 (64 MiB).
(module $grow
  (memory (export "memory") 1 1024)

  ;; grow answers the old size in wasm pages, or -1.
  (func (export "grow") (param $pages i32) (result i32)
    (memory.grow (local.get $pages)))

  (func (export "size") (result i32)
    (memory.size))

  (func (export "store") (param $addr i32) (param $v i32)
    (i32.store (local.get $addr) (local.get $v)))

  (func (export "load") (param $addr i32) (result i32)
    (i32.load (local.get $addr))))
