//! waitfor: waits for the end of a process that is not a child.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use unix::process::Handle;
use unix::wait::Interest;
use unix::{Errno, Pid};

use crate::chain;

/// The table of waitfor.
pub static SPEC: Spec = Spec {
    name: "waitfor",
    summary: "wait for the end of any process",
    section: 1,
    place: Place::Bin,
    options: &[OptionSpec::flag('v', "say what is waited for, and that it has ended")],
    operands: Operands { synopsis: "pid", min: 1, max: Some(1) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the process has ended" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "there is no such process, or it cannot be watched" },
    ],
    description: "Waits until the process with the number pid, which need not be a child, has ended.",
    ..Spec::EMPTY
};

/// waitfor.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// How often a kernel without pidfd_open(2) is asked.
const ASK_AGAIN: Duration = Duration::from_millis(100);

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let pid = parsed.operands[0].to_str().and_then(|text| text.parse().ok()).filter(|&pid: &i32| pid > 0);
    let Some(pid) = pid.map(Pid::from_raw) else {
        let given = parsed.operands[0].as_encoded_bytes().escape_ascii();
        invocation.complain("fatal", format_args!("{given}: expected a process id"));
        return Exit::PERMANENT;
    };
    let tell = |what: &str| {
        if parsed.flag("v") {
            invocation.complain("info", format_args!("process {pid} {what}"));
        }
    };
    let failed = |e: &io::Error| {
        invocation.complain("fatal", format_args!("unable to watch process {pid}: {}", chain::phrase(e)));
        Exit::TEMPORARY
    };
    let watched = match Handle::open(pid) {
        Ok(handle) => Watched::Held(handle),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Watched::ByNumber(pid),
        Err(e) => return failed(&e),
    };
    tell("is waited for");
    match watched.wait() {
        Ok(()) => {
            tell("has ended");
            Exit::OK
        }
        Err(e) => failed(&e),
    }
}

enum Watched {
    Held(Handle),
    ByNumber(Pid),
}

impl Watched {
    fn wait(&self) -> io::Result<()> {
        match self {
            Self::Held(handle) => {
                while !unix::wait::ready(&[(handle.as_fd(), Interest::Read)], None)?[0].read {}
                Ok(())
            }
            Self::ByNumber(pid) => poll(*pid),
        }
    }
}

/// Without a handle on it: whoever has its number next is taken for it.
fn poll(pid: Pid) -> io::Result<()> {
    let there = || match nix::sys::signal::kill(pid, None) {
        Ok(()) | Err(Errno::EPERM) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(e) => Err(io::Error::from(e)),
    };
    if !there()? {
        return Err(Errno::ESRCH.into());
    }
    while there()? {
        unix::wait::pause(ASK_AGAIN);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_handle_the_number_is_asked_for() {
        let mut child = std::process::Command::new("/bin/sleep").arg("0.3").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        // Somebody has to take it, or its number stays in use.
        let parent = std::thread::spawn(move || child.wait());
        poll(pid).unwrap();
        assert!(parent.join().unwrap().unwrap().success(), "not before its end");
        assert_eq!(poll(pid).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }
}
