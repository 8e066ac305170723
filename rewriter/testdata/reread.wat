;; Code that reads an active data segment, which instantiation has dropped. Nothing reads the first one.
(module
  (memory 1)
  (data (i32.const 0) "first")
  (data $a (i32.const 8) "a")
  (func (export "again") (param i32) (memory.init $a (i32.const 100) (i32.const 0) (local.get 0))))
