//! The smallest Rust guest: its state is a plain static.

static mut N: i32 = 0;

#[no_mangle]
pub extern "C" fn set(n: i32) {
    unsafe { N = n }
}

#[no_mangle]
pub extern "C" fn get() -> i32 {
    unsafe { N }
}
