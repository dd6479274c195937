//! The keeper: the process that holds the private view and everything that runs in it.
//!
//! It is started by [`Keeper::start`] as a program of its own (the hidden command `keep`), enters
//! the view, says `ready` on its standard output, and takes one-letter orders on its standard
//! input: `g` starts svscan, `d` detaches. When its standard input closes without `d`, or SIGTERM
//! arrives, it stops svscan, waits, kills what is left and ends. It is a subreaper, so that nothing
//! it started can get away.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use unix::Pid;
use unix::child::Launch;
use unix::clock::Deadline;
use unix::lock::Lock;
use unix::signals::Signals;
use unix::wait::{Interest, ready};

use super::view::{self, Kind};
use super::{Instance, ability, leftovers};

/// How long svscan may take to stop everything in an orderly way.
const ORDERLY: Duration = Duration::from_secs(20);
/// How long the keeper as a whole may take to end.
const WHOLE: Duration = Duration::from_secs(60);

/// A running keeper, seen from the process that started it.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
    enter: Vec<OsString>,
    kind: Kind,
}

impl Keeper {
    /// Starts the keeper and waits until it is in the private view.
    ///
    /// # Errors
    /// It says why it could not.
    pub fn start(instance: &Instance) -> Result<Self> {
        // Not our own stderr: whoever reads that to its end must not wait for a detached keeper.
        let log = instance.at("var/log/keeper");
        let said = std::fs::File::create(&log).with_context(|| log.display().to_string())?;
        // The instance's own copy: the installation may be where only root can read.
        let mut child = Command::new(instance.program("svctool"))
            .arg("keep")
            .arg(instance.dir())
            .env(leftovers::MARK, instance.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(said)
            // Ctrl-C is for the process in front; it tells the keeper.
            .process_group(0)
            .spawn()
            .context("start the keeper")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the keeper's output")?;
        BufReader::new(stdout).read_line(&mut line).context("the keeper's output")?;
        let kind = match line.trim() {
            "ready mounts" => Kind::Mounts,
            "ready user" => Kind::UserAndMounts,
            "ready none" => Kind::None,
            _ => {
                let status = child.wait()?;
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                bail!("the private view could not be made ({status}): {}", said.trim());
            }
        };
        let enter = enter_prefix(instance, child.id(), kind);
        Ok(Self { child, enter, kind })
    }

    /// What kind of view it holds.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The argument vector that runs a command inside the view.
    #[must_use]
    pub fn enter(&self) -> &[OsString] {
        &self.enter
    }

    /// Tells it to start svscan.
    ///
    /// # Errors
    /// It has ended.
    pub fn go(&mut self) -> Result<()> {
        self.order(b"g")
    }

    /// Tells it to go on when this process ends.
    ///
    /// # Errors
    /// It has ended.
    pub fn detach(mut self) -> Result<()> {
        self.order(b"d")
    }

    fn order(&mut self, letter: &[u8]) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("the keeper's input")?;
        stdin.write_all(letter).context("the keeper has ended")
    }

    /// Has it ended by itself (svscan died)?
    ///
    /// # Errors
    /// wait fails.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Stops everything and waits until nothing is left.
    ///
    /// # Errors
    /// Something is left.
    pub fn stop(mut self, instance: &Instance) -> Result<()> {
        drop(self.child.stdin.take());
        let deadline = Deadline::after(WHOLE);
        while self.child.try_wait()?.is_none() {
            if deadline.passed() {
                self.child.kill()?;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        leftovers::kill_all(instance)?;
        leftovers::forget_namespace(instance);
        Ok(())
    }
}

/// The argument vector in front of a command that is to run inside the instance whose keeper is
/// `pid`.
#[must_use]
pub fn enter_prefix(instance: &Instance, pid: u32, kind: Kind) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::new();
    if nix::unistd::geteuid().is_root() && instance.is_lesser() {
        argv.extend(ability::AS_NOBODY.map(OsString::from));
    }
    argv.extend(enter_as_owner(instance, pid, kind));
    argv
}

/// As [`enter_prefix`], for a process of the instance's owner.
fn enter_as_owner(instance: &Instance, pid: u32, kind: Kind) -> Vec<OsString> {
    let mut argv: Vec<OsString> = Vec::new();
    if kind != Kind::None {
        argv.push("nsenter".into());
        if kind == Kind::UserAndMounts {
            argv.push("--preserve-credentials".into());
            argv.push(format!("--user=/proc/{pid}/ns/user").into());
        }
        argv.push(format!("--mount=/proc/{pid}/ns/mnt").into());
        argv.push("--".into());
    }
    argv.push("env".into());
    let path = ("PATH", instance.search_path());
    for (name, value) in instance.variables().into_iter().chain([path]) {
        let mut assignment = OsString::from(format!("{name}="));
        assignment.push(value);
        argv.push(assignment);
    }
    argv
}

/// The process id and view of the keeper that is running for this instance.
#[must_use]
pub fn running(instance: &Instance) -> Option<(u32, Kind)> {
    // While the lock is held, the file beside it belongs to its holder.
    let free = Lock::try_exclusive(&instance.at("lock"), 0o600).ok()?.is_some();
    if free {
        return None;
    }
    let text = std::fs::read_to_string(instance.at("keeper")).ok()?;
    let (pid, kind) = text.trim().split_once(' ')?;
    let kind = match kind {
        "mounts" => Kind::Mounts,
        "user" => Kind::UserAndMounts,
        _ => Kind::None,
    };
    Some((pid.parse().ok()?, kind))
}

/// Stops a detached (or abandoned) instance; returns only when nothing of it is left running.
///
/// # Errors
/// Something does not end.
pub fn stop_running(instance: &Instance) -> Result<bool> {
    let keeper = running(instance);
    if let Some((pid, _)) = keeper {
        let pid = Pid::from_raw(i32::try_from(pid).context("process id")?);
        // It may be ending already.
        let _ = kill(pid, Signal::SIGTERM);
        let released = Lock::exclusive_within(&instance.at("lock"), 0o600, WHOLE)?;
        if released.is_none() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    let killed = leftovers::kill_all(instance)?;
    leftovers::forget_namespace(instance);
    Ok(keeper.is_some() || killed > 0)
}

/// The body of the keeper process.
///
/// # Errors
/// The instance is running already, the view cannot be entered, svscan cannot be started.
pub fn keep(instance: &Instance) -> Result<()> {
    let Some(_lock) = Lock::try_exclusive(&instance.at("lock"), 0o600)? else {
        bail!("{}: already running", instance.dir().display());
    };
    nix::sys::prctl::set_child_subreaper(true).context("become a subreaper")?;
    let kind = view::enter(instance)?;
    if kind != Kind::None {
        leftovers::note_namespace(instance)?;
    }
    let mut signals = Signals::listen(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD])?;
    let word = match kind {
        Kind::Mounts => "mounts",
        Kind::UserAndMounts => "user",
        Kind::None => "none",
    };
    std::fs::write(instance.at("keeper"), format!("{} {word}\n", std::process::id()))?;
    let mut out = std::io::stdout();
    writeln!(out, "ready {word}").and_then(|()| out.flush()).context("tell that the view is ready")?;
    let svscan = attend(instance, &mut signals)?;
    if let Some(svscan) = svscan {
        stop_svscan(svscan, &mut signals)?;
    }
    leftovers::kill_all(instance)?;
    let _ = std::fs::remove_file(instance.at("keeper"));
    leftovers::forget_namespace(instance);
    Ok(())
}

/// Takes orders until it is time to stop; returns svscan if it is still there.
fn attend(instance: &Instance, signals: &mut Signals) -> Result<Option<Pid>> {
    let stdin = std::io::stdin();
    let (mut svscan, mut detached) = (None, false);
    loop {
        let wanted = if detached { Interest::Nothing } else { Interest::Read };
        let mut fds = vec![(signals.as_fd(), Interest::Read)];
        if !detached {
            fds.push((stdin.as_fd(), wanted));
        }
        let state = ready(&fds, None)?;
        while let Some(signal) = signals.take() {
            match signal {
                Signal::SIGTERM | Signal::SIGINT => return Ok(svscan),
                Signal::SIGCHLD => {
                    while let Some((pid, _)) = unix::child::reap()? {
                        if svscan == Some(pid) {
                            return Ok(None);
                        }
                    }
                }
                _ => {}
            }
        }
        if state.get(1).is_some_and(|s| s.read) {
            let mut order = [0u8; 1];
            match nix::unistd::read(&stdin, &mut order)? {
                0 => return Ok(svscan),
                _ if order[0] == b'g' && svscan.is_none() => svscan = Some(start_svscan(instance)?),
                _ if order[0] == b'd' => detached = true,
                _ => {}
            }
        }
    }
}

fn start_svscan(instance: &Instance) -> Result<Pid> {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(instance.at("var/log/svscan"))
        .context("log of svscan")?;
    let null = std::fs::File::open("/dev/null")?;
    let mut environment: Vec<(OsString, OsString)> =
        vec![("PATH".into(), instance.search_path()), (leftovers::MARK.into(), instance.dir().into())];
    // Stop services with svscan, keep its pid file in the scan directory, restart what dies.
    for switch in ["TERMINATE_SESSION", "DISABLE_RUN", "SCANNOW", "AUTOSCAN"] {
        environment.push((switch.into(), "1".into()));
    }
    let program = instance.program("svscan");
    Launch::new(&program)
        .args([instance.service()])
        .env_exactly(environment)
        .directory(instance.dir())
        .descriptor(null.as_fd(), 0)?
        .descriptor(log.as_fd(), 1)?
        .descriptor(log.as_fd(), 2)?
        .new_session()
        .start()
        .with_context(|| program.display().to_string())
}

/// Asks svscan to stop everything; gives up waiting after [`ORDERLY`].
fn stop_svscan(svscan: Pid, signals: &mut Signals) -> Result<()> {
    let _ = kill(svscan, Signal::SIGTERM);
    let deadline = Deadline::after(ORDERLY);
    while !deadline.passed() {
        while let Some((pid, _)) = unix::child::reap()? {
            if pid == svscan {
                return Ok(());
            }
        }
        ready(&[(signals.as_fd(), Interest::Read)], Some(deadline))?;
        while signals.take().is_some() {}
    }
    Ok(())
}
