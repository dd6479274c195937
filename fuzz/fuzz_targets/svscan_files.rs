//! Small files around svscan: the pid file, the exit code, what svps has stopped. What is read is in range, and what
//! was written reads back.
#![no_main]

use daemontools::svps::{parse_stopped, stopped_text};
use daemontools::svscan::{hooks::parse_exit_code, pid_file};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(pid) = pid_file::decode(data) {
        assert!(pid.as_raw() > 0);
        assert_eq!(pid_file::decode(&pid_file::encode(pid)), Some(pid));
    }
    if let Some(code) = parse_exit_code(data) {
        assert_eq!(parse_exit_code(code.to_string().as_bytes()), Some(code));
    }
    let paths = parse_stopped(data);
    assert!(paths.iter().all(|path| path.is_absolute()));
    assert_eq!(parse_stopped(&stopped_text(&paths)), paths);
});
