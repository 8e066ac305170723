;; Refused: 65536 wasm pages at once, 4 GiB exactly; 65535 is the most that is kept.
(module $toobig
  (memory (export "memory") 65536)
  (func (export "size") (result i32) (memory.size)))
