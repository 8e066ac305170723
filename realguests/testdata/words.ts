// An AssemblyScript guest: a Map of managed strings under AssemblyScript's incremental garbage collector, and a start
// function that must run once in the life of a state.

const words = new Map<i32, string>();
let started: i32 = 0;
let seed: u32 = 1;

started += 1; // top-level code is the start function

export function starts(): i32 { return started; }

export function add(key: i32): void { words.set(key, "word-" + key.toString()); }

export function remove(key: i32): void { words.delete(key); }

export function size(): i32 { return words.size; }

export function collect(): void { __collect(); }

export function checksum(): i64 {
  let sum: i64 = 0;
  const keys = words.keys();
  for (let i = 0; i < keys.length; i++) {
    const word = words.get(keys[i]);
    for (let j = 0; j < word.length; j++) sum = sum * 31 + word.charCodeAt(j);
  }
  return sum;
}

export function random(): i32 {
  seed = seed * 1664525 + 1013904223 + words.size;
  return seed >>> 1;
}
