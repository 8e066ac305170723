//! What benchmarks compare with databases: a counter, and a table of 16-byte keys and 100-byte
//! values, kept as one would keep them in a program that is never to end. `init` chooses an
//! ordered table instead of a hashed one, once, before there are entries.
//!
//! The host puts keys and values into the buffer that `buf` tells, and calls.

use std::collections::{BTreeMap, HashMap};

type Key = [u8; 16];
type Value = [u8; 100];
const ENTRY: usize = 116;

enum Table {
    Hashed(HashMap<Key, Value>),
    Ordered(BTreeMap<Key, Value>),
}

static mut TABLE: Option<Table> = None;
static mut COUNT: u64 = 0;
/// 2,000 entries fit.
static mut BUF: [u8; 262144] = [0; 262144];

fn table() -> &'static mut Table {
    unsafe { TABLE.get_or_insert_with(|| Table::Hashed(HashMap::new())) }
}

/// Empties the table and makes room for so many entries.
#[no_mangle]
pub extern "C" fn init(capacity: u32, ordered: u32) {
    unsafe {
        TABLE = Some(match ordered {
            0 => Table::Hashed(HashMap::with_capacity(capacity as usize)),
            _ => Table::Ordered(BTreeMap::new()),
        });
    }
}

#[no_mangle]
pub extern "C" fn buf() -> *mut u8 {
    unsafe { BUF.as_mut_ptr() }
}

fn insert(key: Key, value: Value) {
    match table() {
        Table::Hashed(t) => t.insert(key, value),
        Table::Ordered(t) => t.insert(key, value),
    };
}

/// Puts the entry in the buffer: its key, then its value.
#[no_mangle]
pub extern "C" fn put(at: *const u8) {
    put_many(at, 1)
}

/// Puts n entries of 116 bytes.
#[no_mangle]
pub extern "C" fn put_many(at: *const u8, n: u32) {
    for i in 0..n as usize {
        unsafe {
            let entry = at.add(i * ENTRY);
            insert(*(entry as *const Key), *(entry.add(16) as *const Value));
        }
    }
}

/// Copies the value of the key at `key` to `out`; 0 if there is none, else 1.
#[no_mangle]
pub extern "C" fn get(key: *const Key, out: *mut Value) -> u32 {
    let value = unsafe {
        match table() {
            Table::Hashed(t) => t.get(&*key),
            Table::Ordered(t) => t.get(&*key),
        }
    };
    match value {
        Some(v) => unsafe {
            *out = *v;
            1
        },
        None => 0,
    }
}

#[no_mangle]
pub extern "C" fn len() -> u32 {
    match table() {
        Table::Hashed(t) => t.len() as u32,
        Table::Ordered(t) => t.len() as u32,
    }
}

#[no_mangle]
pub extern "C" fn inc() -> u64 {
    unsafe {
        COUNT += 1;
        COUNT
    }
}

#[no_mangle]
pub extern "C" fn count() -> u64 {
    unsafe { COUNT }
}
