//! `svctool`: configure, check and try the system.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser};
use program::Layout;
use svctool::cli::{self, Cli};

fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    let outcome = match first.as_ref().and_then(|a| a.to_str()) {
        Some(question @ ("--list-programs" | "--man" | "--completions")) => describe(question),
        _ => cli::run(Cli::parse(), &Layout::of_this_process(), |name: &str| -> Option<OsString> {
            std::env::var_os(name)
        }),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("svctool: fatal: {e:#}");
            ExitCode::from(1)
        }
    }
}

/// What installation asks of every executable: its programs, a manual page, a completion.
fn describe(question: &str) -> Result<u8> {
    let mut out = std::io::stdout();
    let mut command = Cli::command();
    match question {
        "--man" => clap_mangen::Man::new(command).section("8").render(&mut out).context("manual page")?,
        "--completions" => {
            clap_complete::generate(clap_complete::Shell::Bash, &mut command, "svctool", &mut out);
        }
        _ => println!("svctool\tsbin\t8"),
    }
    Ok(0)
}
