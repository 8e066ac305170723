;; Active segments with every kind of offset, and one that is out of bounds.
(module
  (import "env" "base" (global $base i32))
  (memory 1)
  (data $a (i32.const 0) "aaaa")
  (data $b (global.get $base) "bb")
  (data $c (i32.add (global.get $base) (i32.mul (i32.const 4) (i32.const 2))) "cc")
  (data $d (i32.const -2) "dd")
  (data $e (i32.const 20) "ee"))
