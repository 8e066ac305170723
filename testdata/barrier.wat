;; Host calls that only a careful barrier sees through.
(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random_get (param i32 i32) (result i32)))
  (import "env" "outer" (func $outer))
  (import "env" "inner" (func $inner))
  (import "env" "tail" (func $tail))
  (memory (export "memory") 16)

  ;; read(n): reads n bytes by a list of two buffers, at 1024, of which the first is the list itself.
  ;; What the host reads there says where the second buffer is.
  (func (export "read") (param $n i32) (result i32)
    (i32.store (i32.const 1024) (i32.const 1024))
    (i32.store (i32.const 1028) (i32.const 16))
    (i32.store (i32.const 1032) (i32.const 8192))
    (i32.store (i32.const 1036) (local.get $n))
    (call $fd_read (i32.const 0) (i32.const 1024) (i32.const 2) (i32.const 512)))

  ;; nested() calls outer, which tells what it writes, and calls again(), which calls inner, which does
  ;; not tell.
  (func (export "nested") (call $outer))
  (func (export "again") (call $inner))
  (func (export "tailed") (call $tail))
  (func (export "random") (param $at i32) (drop (call $random_get (local.get $at) (i32.const 8))))
  (func (export "load") (param i32) (result i32) (i32.load8_u (local.get 0))))
