//! A Rust guest for WASI: its state is a growing `Vec`, and each push prints a line.

use std::io::Write;
use std::sync::Mutex;

static ITEMS: Mutex<Vec<i64>> = Mutex::new(Vec::new());

/// Appends v, prints `pushed V, N items` and answers N.
#[no_mangle]
pub extern "C" fn push(v: i64) -> i32 {
    let mut items = ITEMS.lock().unwrap();
    items.push(v);
    println!("pushed {}, {} items", v, items.len());
    items.len() as i32
}

/// Answers item i; an index past the end panics, which prints to standard error and traps.
#[no_mangle]
pub extern "C" fn at(i: i32) -> i64 {
    ITEMS.lock().unwrap()[i as usize]
}

#[no_mangle]
pub extern "C" fn sum() -> i64 {
    ITEMS.lock().unwrap().iter().sum()
}

#[no_mangle]
pub extern "C" fn len() -> i32 {
    ITEMS.lock().unwrap().len() as i32
}

/// Prints the bytes of v in decimal without a newline, so that they stay in the guest's line buffer
/// until a later event completes the line.
#[no_mangle]
pub extern "C" fn print_part(v: i64) {
    print!("{} ", v);
}

/// Prints what the buffer holds.
#[no_mangle]
pub extern "C" fn flush() {
    std::io::stdout().flush().unwrap();
}
