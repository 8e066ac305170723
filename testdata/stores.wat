;; A writer of raw pages, for benchmarks and torture. A page here is 4 KiB; grow and size count
;; wasm pages. Nothing is checked: an address past the end of memory traps.
(module $stores
  (memory (export "memory") 1 65535)

  ;; Every writing call that completes adds 1.
  (global $count (mut i64) (i64.const 0))
  (func $counted
    (global.set $count (i64.add (global.get $count) (i64.const 1))))
  (func (export "count") (result i64) (global.get $count))

  (func (export "grow") (param $wasm_pages i32) (result i32)
    (memory.grow (local.get $wasm_pages)))
  (func (export "size") (result i32) (memory.size))

  (func (export "one") (param $addr i32) (param $v i64)
    (i64.store (local.get $addr) (local.get $v))
    (call $counted))
  (func (export "load") (param $addr i32) (result i64)
    (i64.load (local.get $addr)))

  ;; touch writes value at the start of the n pages start_page, start_page+stride, ...
  (func (export "touch") (param $start_page i32) (param $stride i32) (param $n i32) (param $value i64)
    (local $addr i32)
    (local.set $addr (i32.mul (local.get $start_page) (i32.const 4096)))
    (local.set $stride (i32.mul (local.get $stride) (i32.const 4096)))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (i64.store (local.get $addr) (local.get $value))
        (local.set $addr (i32.add (local.get $addr) (local.get $stride)))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next)))
    (call $counted))

  (func (export "fill") (param $addr i32) (param $len i32) (param $byte i32)
    (memory.fill (local.get $addr) (local.get $byte) (local.get $len))
    (call $counted))
  (func (export "copy") (param $dst i32) (param $src i32) (param $len i32)
    (memory.copy (local.get $dst) (local.get $src) (local.get $len))
    (call $counted))

  ;; random makes n stores of an i64, each at a random aligned place of a page that is drawn
  ;; uniformly from the whole memory (with repetition). The generator is Knuth's LCG:
  ;;   x = x*6364136223846793005 + 1442695040888963407
  ;;   page = (x>>32) * pages >> 32,  offset in it = x>>20 & 0xff8,  value stored = x
  (func (export "random") (param $seed i64) (param $n i32)
    (local $pages i64)
    (local.set $pages (i64.extend_i32_u (i32.shl (memory.size) (i32.const 4))))
    (block $done
      (loop $next
        (br_if $done (i32.eqz (local.get $n)))
        (local.set $seed
          (i64.add
            (i64.mul (local.get $seed) (i64.const 6364136223846793005))
            (i64.const 1442695040888963407)))
        (i64.store
          (i32.or
            (i32.shl
              (i32.wrap_i64
                (i64.shr_u
                  (i64.mul (i64.shr_u (local.get $seed) (i64.const 32)) (local.get $pages))
                  (i64.const 32)))
              (i32.const 12))
            (i32.and
              (i32.wrap_i64 (i64.shr_u (local.get $seed) (i64.const 20)))
              (i32.const 0xff8)))
          (local.get $seed))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $next)))
    (call $counted)))
