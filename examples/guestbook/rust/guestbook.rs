//! A guestbook that forgets nobody: its data are plain variables, and nothing is saved or loaded.
//!
//! An event is a name on standard input; the effect is a greeting on standard output.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

thread_local! {
    static GUESTS: RefCell<BTreeMap<String, u32>> = RefCell::new(BTreeMap::new());
}

#[no_mangle]
pub extern "C" fn handle() -> i32 {
    let mut name = String::new();
    if io::stdin().read_to_string(&mut name).is_err() || name.trim().is_empty() {
        eprintln!("an event without a name");
        return 1; // refused: nothing has happened
    }
    GUESTS.with(|guests| {
        let mut guests = guests.borrow_mut();
        let visits = guests.entry(name.trim().to_string()).or_insert(0);
        *visits += 1;
        let visits = *visits;
        println!("Hello {}, visit {}, guests {}", name.trim(), visits, guests.len());
    });
    match io::stdout().flush() {
        Ok(()) => 0,
        Err(_) => 2,
    }
}
