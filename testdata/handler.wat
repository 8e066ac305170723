;; A handler that does what the event's first byte says, and counts the events that it has taken.
(module
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 2)
  (global $count (export "count") (mut i32) (i32.const 0))
  (data (i32.const 64) "complaint\n")

  (func $print (param $fd i32) (param $at i32) (param $n i32)
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (local.get $n))
    (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))

  ;; read() reads up to 4096 bytes to address 4096 and returns how many there were.
  (func $read (result i32)
    (local $n i32) (local $got i32)
    (block $end
      (loop $more
        (i32.store (i32.const 0) (i32.add (i32.const 4096) (local.get $n)))
        (i32.store (i32.const 4) (i32.sub (i32.const 4096) (local.get $n)))
        (br_if $end (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (br_if $end (i32.eqz (local.tee $got (i32.load (i32.const 8)))))
        (local.set $n (i32.add (local.get $n) (local.get $got)))
        (br $more)))
    (local.get $n))

  ;; e: echoes the event; r: refuses it with 7; t: traps; x: exits; c: complains and refuses;
  ;; b: prints 64 KiB until that fails; n: prints nothing.
  (func (export "handle") (result i32)
    (local $n i32) (local $what i32)
    (local.set $n (call $read))
    (local.set $what (i32.load8_u (i32.const 4096)))
    (global.set $count (i32.add (global.get $count) (i32.const 1)))
    (call $print (i32.const 1) (i32.const 4096)
      (select (i32.const 0) (local.get $n) (i32.eq (local.get $what) (i32.const 0x6e))))
    (if (i32.eq (local.get $what) (i32.const 0x72)) (then (return (i32.const 7))))
    (if (i32.eq (local.get $what) (i32.const 0x74)) (then (unreachable)))
    (if (i32.eq (local.get $what) (i32.const 0x78)) (then (call $proc_exit (i32.const 3))))
    (if (i32.eq (local.get $what) (i32.const 0x63))
      (then (call $print (i32.const 2) (i32.const 64) (i32.const 10)) (return (i32.const 1))))
    (if (i32.eq (local.get $what) (i32.const 0x62))
      (then
        (loop $more
          (i32.store (i32.const 0) (i32.const 0))
          (i32.store (i32.const 4) (i32.const 65536))
          (br_if $more
            (i32.eqz (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))))
    (i32.const 0))

  (func (export "get") (result i32) (global.get $count))
  (func (export "say") (call $print (i32.const 1) (i32.const 64) (i32.const 10))))
