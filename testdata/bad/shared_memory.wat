;; Refused: another thread may write a shared memory at any moment, so there is no quiescent point.
(module $shared_memory
  (memory (export "memory") 1 16 shared)
  (func (export "load") (param $addr i32) (result i32)
    (i32.load (local.get $addr))))
