//! A key-value store on the collections of Rust's standard library, with the allocator that
//! wasm32-unknown-unknown brings along: the values in a `HashMap`, an ordered index in a `BTreeMap`.
//!
//! The exports speak integers. The value of `v` is a blob of `8 + v % 200` bytes: `v`, little-endian,
//! and then a pattern that follows from it.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

#[derive(Default)]
struct Store {
    values: HashMap<u64, Vec<u8>>,
    /// How often each key that is present has been put.
    puts: BTreeMap<u64, u64>,
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

fn blob(v: u64) -> Vec<u8> {
    let len = 8 + (v % 200) as usize;
    let mut bytes = Vec::with_capacity(len);
    bytes.extend_from_slice(&v.to_le_bytes());
    bytes.extend((8..len).map(|i| (v as u8).wrapping_add(i as u8)));
    bytes
}

/// Panics, which is a trap, if the bytes are not as `blob` has made them.
fn unblob(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    let v = u64::from_le_bytes(first);
    assert!(bytes == blob(v));
    v
}

/// Answers 1 if the key is new, 0 if its value was replaced.
#[no_mangle]
pub extern "C" fn put(key: u64, v: u64) -> i32 {
    STORE.with(|s| {
        let s = &mut *s.borrow_mut();
        *s.puts.entry(key).or_default() += 1;
        s.values.insert(key, blob(v)).is_none() as i32
    })
}

/// Answers the value, or -1 for a key that is absent.
#[no_mangle]
pub extern "C" fn get(key: u64) -> i64 {
    STORE.with(|s| s.borrow().values.get(&key).map_or(-1, |b| unblob(b) as i64))
}

/// Answers 1 if the key was there.
#[no_mangle]
pub extern "C" fn del(key: u64) -> i32 {
    STORE.with(|s| {
        let s = &mut *s.borrow_mut();
        s.puts.remove(&key);
        s.values.remove(&key).is_some() as i32
    })
}

#[no_mangle]
pub extern "C" fn len() -> i32 {
    STORE.with(|s| {
        let s = s.borrow();
        assert_eq!(s.values.len(), s.puts.len());
        s.values.len() as i32
    })
}

/// FNV-1a over key, value and number of puts, each as 8 little-endian bytes, in the order of the keys.
#[no_mangle]
pub extern "C" fn checksum() -> i64 {
    STORE.with(|s| {
        let s = s.borrow();
        let mut h: u64 = 14695981039346656037;
        for (key, puts) in &s.puts {
            for number in [*key, unblob(&s.values[key]), *puts] {
                for byte in number.to_le_bytes() {
                    h = (h ^ byte as u64).wrapping_mul(1099511628211);
                }
            }
        }
        h as i64
    })
}
