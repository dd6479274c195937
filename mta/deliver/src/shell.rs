//! Programs of dot-qmail files.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use program::{Environment, Layout};
use unix::Signal;
use unix::child::{Ending, Launch, wait_for, wait_until};
use unix::clock::Deadline;

/// How long a program may take: a day, as long as anything that handles one message.
const PATIENCE: Duration = Duration::from_secs(86_400);

/// What the end of a program means to the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// 0: go on.
    GoOn,
    /// 99: look at no further line.
    Stop,
    /// 64, 65, 70, 76, 77, 78, 100, 112: never.
    Permanent,
    /// Everything else, a crash included: not now.
    Temporary,
}

impl Meaning {
    /// The meaning of an end.
    #[must_use]
    pub fn of(ending: Ending) -> Self {
        match ending {
            Ending::Exited(0) => Self::GoOn,
            Ending::Exited(99) => Self::Stop,
            Ending::Exited(64 | 65 | 70 | 76 | 77 | 78 | 100 | 112) => Self::Permanent,
            Ending::Exited(_) | Ending::Killed(_) => Self::Temporary,
        }
    }
}

/// Runs a command line with `/bin/sh -c`, the message on descriptor 0.
///
/// The line is the owner's own text. Nothing from the message or its envelope is ever put into it;
/// those are variables.
///
/// # Errors
/// It could not be started.
pub fn run(line: &[u8], message: BorrowedFd<'_>, environment: &Environment) -> io::Result<Ending> {
    finish(
        Launch::new("/bin/sh")
            .args([OsStr::new("-c"), OsStr::from_bytes(line)])
            .env_exactly(environment.to_vec())
            .descriptor(message, 0)?,
        PATIENCE,
    )
}

/// Runs a program with its arguments, the message on descriptor 0.
///
/// # Errors
/// It could not be started.
pub fn run_program(
    argv: &[impl AsRef<OsStr>],
    message: BorrowedFd<'_>,
    environment: &Environment,
) -> io::Result<Ending> {
    let (program, args) =
        argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
    let launch = Launch::new(program).args(args).env_exactly(environment.to_vec()).descriptor(message, 0)?;
    finish(launch, PATIENCE)
}

/// Runs it to its end; a program that takes too long is killed, with what it has started.
fn finish(launch: Launch, patience: Duration) -> io::Result<Ending> {
    let pid = launch.new_process_group().start()?;
    if let Some(ending) = wait_until(pid, Deadline::after(patience))? {
        return Ok(ending);
    }
    // It may end by itself at this moment: then there is nothing to kill, and its end counts.
    let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
    wait_for(pid)
}

/// Makes the programs of this installation found after those of the given PATH.
pub fn extend_path(environment: &mut Environment, layout: &Layout) {
    let mut path = environment
        .get("PATH")
        .filter(|p| !p.is_empty())
        .map_or_else(|| OsStr::new("/usr/local/bin:/usr/bin:/bin").to_owned(), OsStr::to_owned);
    for directory in [layout.bin(""), layout.sbin("")] {
        path.push(":");
        path.push(
            directory
                .as_os_str()
                .to_str()
                .map_or(directory.as_os_str(), |d| OsStr::new(d.trim_end_matches('/'))),
        );
    }
    environment.set("PATH", path);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn exit_codes_have_their_meaning() {
        use Meaning::{GoOn, Permanent, Stop, Temporary};
        for code in 0..=255 {
            let wanted = match code {
                0 => GoOn,
                99 => Stop,
                64 | 65 | 70 | 76 | 77 | 78 | 100 | 112 => Permanent,
                _ => Temporary,
            };
            assert_eq!(Meaning::of(Ending::Exited(code)), wanted, "{code}");
        }
        assert_eq!(Meaning::of(Ending::Killed(11)), Temporary);
    }

    #[test]
    fn variables_are_not_shell_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut env = Environment::from_iter([("PATH", "/usr/bin:/bin")]);
        let evil = format!("$(touch {0}/a)`touch {0}/b`; touch {0}/c\n'\"@x", dir.path().display());
        env.set("SENDER", evil.clone());
        env.set("OUT", dir.path().join("out"));
        let null = std::fs::File::open("/dev/null").unwrap();
        let ending = run(b"printf %s \"$SENDER\" > \"$OUT\"", null.as_fd(), &env).unwrap();
        assert!(ending.is_success());
        assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), evil);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_tried_again() {
        let launch = Launch::new("/bin/sh").args(["-c", "sleep 1000; exit 0"]);
        let ending = finish(launch, Duration::from_millis(20)).unwrap();
        assert_eq!(Meaning::of(ending), Meaning::Temporary);
    }

    #[test]
    fn our_programs_come_last_in_the_path() {
        let mut env = Environment::from_iter([("PATH", "/bin")]);
        extend_path(&mut env, &Layout::at("/opt/x"));
        assert_eq!(env.bytes("PATH").unwrap(), b"/bin:/opt/x/bin:/opt/x/sbin");
    }
}
