//! Scripts of multilog, one argument a line; the last line is one to route.
#![no_main]

use daemontools::multilog::script::{Route, Script};
use std::os::unix::ffi::OsStringExt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut words: Vec<_> = data.split(|&b| b == b'\n').collect();
    let line = words.pop().unwrap_or_default();
    let args: Vec<_> = words.iter().map(|word| std::ffi::OsString::from_vec(word.to_vec())).collect();
    if let Ok(script) = Script::parse(&args) {
        script.route(line, true, &mut Route::default());
    }
});
