//! Programs of dot-qmail files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use program::{Environment, Invocation, Layout};
use unix::child::{Ending, Launch, wait_for, wait_until};
use unix::clock::Deadline;
use unix::{Pid, Signal};

use crate::virtual_delivery::PROGRAM;

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

/// The reason that a program could not print itself: a signal killed it. Empty when it exited; then it
/// has said what it wanted to say.
#[must_use]
pub fn unsaid(ending: Ending) -> String {
    match ending {
        Ending::Exited(_) => String::new(),
        Ending::Killed(signal) => format!("a program was killed by signal {signal} (#4.3.0)"),
    }
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

/// Runs a command line as `/bin/sh -c` does, the message on descriptor 0.
///
/// The line is the owner's own text. Nothing from the message or its envelope is ever put into it;
/// those are variables. A line that is nothing but a program's path and plain words runs without a
/// shell in between; whatever such a program cannot be started for, the shell may say.
///
/// # Errors
/// It could not be started.
pub fn run(line: &[u8], message: BorrowedFd<'_>, environment: &Environment) -> io::Result<Ending> {
    if let Some(argv) = words(line) {
        let environment = corrected(environment);
        if let Some(inner) = ours(&argv, &environment)
            && let Ok(pid) = unix::child::run_in_copy(message, || (PROGRAM.main)(&inner).0)
        {
            return ended(pid, PATIENCE);
        }
        let launch = launch(&argv, message, &environment)?.new_process_group();
        if let Ok(pid) = launch.start() {
            return ended(pid, PATIENCE);
        }
    }
    finish(
        launch(&[OsStr::new("/bin/sh"), OsStr::new("-c"), OsStr::from_bytes(line)], message, environment)?,
        PATIENCE,
    )
}

/// A shell passes a correct PWD on.
fn corrected(environment: &Environment) -> Environment {
    let mut environment = environment.clone();
    if environment.is_set("PWD")
        && let Ok(directory) = std::env::current_dir()
    {
        environment.set("PWD", directory);
    }
    environment
}

/// The invocation of vdelivermail that this command line is, if it is nothing else.
pub(crate) fn vdelivermail(line: &[u8], environment: &Environment) -> Option<Invocation> {
    ours(&words(line)?, &corrected(environment))
}

/// The invocation of vdelivermail, when that is the program and it is in the executable that runs here:
/// the line of every virtual domain. Not with options, which print, nor with a TZ, which only counts
/// from the start of a process.
fn ours(argv: &[OsString], environment: &Environment) -> Option<Invocation> {
    let (program, operands) = argv.split_first()?;
    let program = Path::new(program);
    let ours = program.file_name()? == PROGRAM.spec.name
        && !environment.is_set("TZ")
        && !operands.iter().any(|o| o.as_bytes().starts_with(b"-"))
        && std::fs::canonicalize(program).ok()? == unix::host::executable().ok()?;
    ours.then(|| {
        Invocation::new(PROGRAM.spec, operands.to_vec(), environment.clone(), Layout::of_this_process())
    })
}

/// The words of a line in which a shell would see nothing but words, the first one being a path: no
/// variable, pattern, redirection, assignment, operator, builtin or keyword. Single quotes are known.
fn words(line: &[u8]) -> Option<Vec<OsString>> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<Vec<u8>>, false);
    for &byte in line {
        match byte {
            0 | b'\n' => return None,
            b'\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            _ if quoted => word.get_or_insert_default().push(byte),
            b' ' | b'\t' => words.extend(word.take()),
            b'a'..=b'z'
            | b'A'..=b'Z'
            | b'0'..=b'9'
            | b'/'
            | b'.'
            | b'_'
            | b'-'
            | b'+'
            | b','
            | b':'
            | b'@'
            | b'%' => {
                word.get_or_insert_default().push(byte);
            }
            _ => return None,
        }
    }
    words.extend(word);
    let path = words.first().is_some_and(|w| [&b"/"[..], b"./", b"../"].iter().any(|p| w.starts_with(p)));
    (path && !quoted).then(|| words.into_iter().map(OsString::from_vec).collect())
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
    finish(launch(argv, message, environment)?, PATIENCE)
}

fn launch(
    argv: &[impl AsRef<OsStr>],
    message: BorrowedFd<'_>,
    environment: &Environment,
) -> io::Result<Launch> {
    let (program, args) =
        argv.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no program"))?;
    Launch::new(program).args(args).env_exactly(environment.to_vec()).descriptor(message, 0)
}

/// Runs it to its end; a program that takes too long is killed, with what it has started.
fn finish(launch: Launch, patience: Duration) -> io::Result<Ending> {
    ended(launch.new_process_group().start()?, patience)
}

fn ended(pid: Pid, patience: Duration) -> io::Result<Ending> {
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

    /// What the shell hands to the program, word by word, against what we would.
    #[test]
    fn plain_lines_are_read_as_the_shell_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("p");
        std::fs::write(&program, "#!/bin/sh\nprintf '<%s>' \"$0\" \"$@\" > \"$OUT\"; exit 9\n").unwrap();
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let env = Environment::from_iter([("OUT", dir.path().join("out").to_str().unwrap())]);
        let null = std::fs::File::open("/dev/null").unwrap();
        let p = program.to_str().unwrap();
        for rest in [
            "",
            " a b",
            "\t'' bounce-no-mailbox ",
            " 'a  b'c'$x' -z 50% a@b,c:d",
            "'' '\"' '#' '\\n' '=' '*'",
        ] {
            let line = format!(" {p}{rest}");
            let argv = words(line.as_bytes()).unwrap_or_else(|| panic!("{line}"));
            let heard = |run: &dyn Fn() -> io::Result<Ending>| {
                assert_eq!(run().unwrap(), Ending::Exited(9), "{line}");
                std::fs::read(dir.path().join("out")).unwrap()
            };
            let shell = ["/bin/sh".into(), "-c".into(), OsString::from(&line)];
            let by_shell = heard(&|| run_program(&shell, null.as_fd(), &env));
            assert_eq!(heard(&|| run_program(&argv, null.as_fd(), &env)), by_shell, "{line}");
            assert_eq!(heard(&|| run(line.as_bytes(), null.as_fd(), &env)), by_shell, "{line}");
        }
    }

    #[test]
    fn what_a_shell_may_understand_is_left_to_it() {
        for line in [
            "",
            " ",
            "true",
            "exit 99",
            "a/b c",
            "-/x",
            "/x $A",
            "/x `y`",
            "/x > f",
            "/x;y",
            "/x | y",
            "/x &",
            "(/x)",
            "/x *",
            "/x ?",
            "/x [a]",
            "/x {a,b}",
            "/x ~",
            "A=b /x",
            "/x A=b",
            "/x \"a\"",
            "/x \\a",
            "/x # c",
            "/x 'a",
            "/x a'",
            "/x !",
            "/x\ny",
            "/x '\n'",
            "/x \u{e9}",
            "/x\0",
        ] {
            assert_eq!(words(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_started_ends_as_under_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::from_iter([("PWD", "/nonsense"), ("PATH", "/bin:/usr/bin")]);
        let null = std::fs::File::open("/dev/null").unwrap();
        let ending = |line: &str| run(line.as_bytes(), null.as_fd(), &env).unwrap();
        let script = dir.path().join("s");
        assert_eq!(ending(script.to_str().unwrap()), Ending::Exited(127));
        assert_eq!(ending(dir.path().to_str().unwrap()), Ending::Exited(126));
        std::fs::write(&script, "test \"$PWD\" = \"$(pwd)\" && exit 5\n").unwrap();
        assert_eq!(ending(script.to_str().unwrap()), Ending::Exited(126));
        std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(ending(script.to_str().unwrap()), Ending::Exited(5));
    }

    proptest::proptest! {
        #[test]
        fn words_never_panic_and_hold_only_what_the_line_has(line: Vec<u8>) {
            for word in words(&line).unwrap_or_default() {
                let plain: Vec<u8> = line.iter().copied().filter(|&b| b != b'\'').collect();
                proptest::prop_assert!(word.is_empty() || plain.windows(word.len()).any(|w| w == word.as_bytes()));
            }
        }
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
