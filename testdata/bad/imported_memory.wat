;; Refused: the memory belongs to somebody else.
(module $imported_memory
  (import "env" "memory" (memory 1))
  (func (export "load") (param $addr i32) (result i32)
    (i32.load (local.get $addr))))
