;; Lets the kernel write into guest memory: read(2) by way of WASI, no store by guest code.
(module $readfd
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param $fd i32) (param $iovs i32) (param $iovs_len i32) (param $nread i32) (result i32)))
  (memory (export "memory") 16 1024)

  ;; read fills up to len bytes at ptr from fd and answers how many, or the negated WASI errno. The
  ;; first 12 bytes of memory are its own: the iovec and the count.
  (func (export "read") (param $fd i32) (param $ptr i32) (param $len i32) (result i32)
    (local $errno i32)
    (i32.store (i32.const 0) (local.get $ptr))
    (i32.store (i32.const 4) (local.get $len))
    (local.set $errno
      (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))
    (if (local.get $errno)
      (then (return (i32.sub (i32.const 0) (local.get $errno)))))
    (i32.load (i32.const 8)))

  (func (export "load") (param $addr i32) (result i32)
    (i32.load8_u (local.get $addr)))
  (func (export "grow") (param $pages i32) (result i32)
    (memory.grow (local.get $pages))))
