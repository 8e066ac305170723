;; Names and messages that would move a terminal's cursor, clear its screen or turn its text around.
(module $names
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param $fd i32) (param $iovs i32) (param $n i32) (param $written i32) (result i32)))
  (memory (export "memory") 1 1)

  ;; An escape sequence, a text that runs from right to left, half of a character, a whole one.
  (data (i32.const 64) "\1b[2Jgone \e2\80\aetxet \ff\c3 \c3\a9\n")
  (data (i32.const 0) "\40\00\00\00\17\00\00\00") ;; where it is, and its 23 bytes

  ;; say writes them to fd: 1 is standard output, 2 standard error.
  (func $say (export "say") (param $fd i32) (result i32)
    (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8)))

  ;; slowly writes them byte by byte, as an unbuffered stream does.
  (func (export "slowly") (param $fd i32) (local $i i32)
    (i32.store (i32.const 20) (i32.const 1))
    (loop $next
      (i32.store (i32.const 16) (i32.add (i32.const 64) (local.get $i)))
      (drop (call $fd_write (local.get $fd) (i32.const 16) (i32.const 1) (i32.const 8)))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 23)))))

  ;; hang writes to standard error that it has begun, changes a global and does not return.
  (global $hangs (mut i32) (i32.const 0))
  (func (export "hang")
    (global.set $hangs (i32.add (global.get $hangs) (i32.const 1)))
    (drop (call $say (i32.const 2)))
    (loop $forever (br $forever)))

  (func (export "clear\1b[2J") unreachable)
  (func (export "two\nlines"))
  (func (export "back\e2\80\aedraw")))
