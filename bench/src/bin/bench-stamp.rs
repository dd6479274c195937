//! A service of the supervision benchmarks: appends `directory monotonic-nanoseconds pid` to the
//! file named by STAMPFILE, says that it is ready where STAMPNOTIFY names a descriptor, then waits
//! to be killed; with STAMPEXIT it ends at once.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use nix::time::{ClockId, clock_gettime};

fn stamp() -> Option<()> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).ok()?;
    let dir = std::env::current_dir().ok()?;
    let name = dir.file_name()?.to_str()?;
    let line = format!("{name} {} {}\n", now.tv_sec() * 1_000_000_000 + now.tv_nsec(), std::process::id());
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(std::env::var_os("STAMPFILE")?).ok()?;
    file.write_all(line.as_bytes()).ok()
}

fn main() -> ExitCode {
    if stamp().is_none() {
        return ExitCode::from(111);
    }
    if let Some(descriptor) = std::env::var_os("STAMPNOTIFY").and_then(|d| d.into_string().ok()) {
        // /proc opens the pipe anew: enough to write one byte, without taking the descriptor over.
        let _ = std::fs::write(format!("/proc/self/fd/{descriptor}"), "\n");
    }
    if std::env::var_os("STAMPEXIT").is_some() {
        return ExitCode::FAILURE;
    }
    loop {
        nix::unistd::pause();
    }
}
