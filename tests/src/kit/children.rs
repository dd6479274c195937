//! Children that never outlive a test.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{PATIENCE, until, until_some};

/// A process group that is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts `command` as the leader of a process group of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let child = command.process_group(0).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{command:?}: {e}")) }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("process ids fit in i32"))
    }

    /// The child, to talk to its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Has it ended?
    ///
    /// # Panics
    /// When wait fails.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child of ours")
    }

    /// Sends a signal to it alone. After SIGSTOP it has stopped when this returns: each of its threads does
    /// so by itself, and one may answer a question meanwhile.
    ///
    /// # Panics
    /// When it has been waited for already, or does not stop.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("signal a child of ours");
        if signal == Signal::SIGSTOP {
            until(PATIENCE, "every thread has stopped", || self.is_stopped());
        }
    }

    fn is_stopped(&self) -> bool {
        let threads =
            std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("threads of a child of ours");
        threads.flatten().all(|thread| match std::fs::read_to_string(thread.path().join("stat")) {
            // The state follows the name, which may have any character.
            Ok(stat) => stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 'Z', 'X'])),
            // It has ended.
            Err(_) => true,
        })
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `patience`.
    #[track_caller]
    pub fn wait_within(&mut self, patience: Duration) -> ExitStatus {
        until_some(patience, "end of the child", || self.ended())
    }

    /// Asks it to end (SIGTERM) and waits.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn stop(mut self) -> ExitStatus {
        if self.ended().is_none() {
            self.signal(Signal::SIGTERM);
        }
        self.wait_within(PATIENCE)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group may be gone already; then there is nothing to kill.
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// What a command printed and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; 128 + signal when one killed it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Output {
    /// The output, when the exit code was 0.
    ///
    /// # Panics
    /// When it was not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.code == 0, "exit code {}\n{}{}", self.code, self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end with nothing to read.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    run_with_input(command, b"")
}

/// Runs a command to its end, feeding it `input`.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // A command that does not read to the end is its own business.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("wait for a child of ours");
    feeder.join().expect("feeder thread");
    Output {
        code: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_are_kept() {
        let output = run_with_input(Command::new("sh").args(["-c", "cat; echo no >&2; exit 3"]), b"in");
        assert_eq!((output.code, output.stdout.as_str(), output.stderr.as_str()), (3, "in", "no\n"));
    }

    #[test]
    fn dropping_kills_the_whole_group() {
        let mut shell = Running::start(
            Command::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]).stdout(Stdio::piped()),
        );
        let mut line = String::new();
        let out = shell.child().stdout.take().expect("piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
        drop(shell);
        let stat = format!("/proc/{}/stat", line.trim());
        super::super::until(PATIENCE, "grandchild gone", || {
            std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z "))
        });
    }
}
