//! `bench-lines COUNT RATE`: writes COUNT numbered lines of 81 bytes to descriptor 1, RATE a second,
//! each with a write of its own.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn number(arguments: &mut std::env::Args) -> Option<u32> {
    arguments.next()?.parse().ok()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    arguments.next();
    let (Some(count), Some(rate)) = (number(&mut arguments), number(&mut arguments)) else {
        eprintln!("usage: bench-lines COUNT RATE");
        return ExitCode::from(2);
    };
    let begin = Instant::now();
    let mut out = std::io::stdout().lock();
    for i in 0..count {
        if out
            .write_all(format!("L{i:010} {}\n", "a".repeat(68)).as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return ExitCode::from(111);
        }
        if i % 50 == 49 {
            let due = Duration::from_secs_f64(f64::from(i + 1) / f64::from(rate));
            if let Some(early) = due.checked_sub(begin.elapsed()) {
                std::thread::sleep(early);
            }
        }
    }
    ExitCode::SUCCESS
}
