//! Command lines and variables that minisvc keeps: what it reads it writes in a form that reads back the same.
#![no_main]

use daemontools::minisvc::{variables, words};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(all) = words::split(data) {
        assert_eq!(words::split(&words::join(&all)), Some(all));
    }
    if let Ok(all) = variables::from_text(data) {
        assert!(all.keys().all(|name| variables::is_name(name)));
        assert_eq!(variables::from_text(&variables::to_text(&all)), Ok(all));
    }
});
