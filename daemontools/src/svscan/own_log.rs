//! svscan's own logger, `.svscan/log`: supervised like any other, without a service in front of it.

use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::time::Duration;

use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::Interest;
use unix::{Pid, Signal};

use super::launcher::{Launcher, Service};
use super::machine::{Role, START_FLOOR};
use super::voice::Voice;

/// Where svscan keeps what is its own, in the scan directory.
pub(super) const OWN: &str = ".svscan";
/// How long the logger may take to read to the end, and then to end when told to.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct OwnLog {
    service: Service,
    running: Option<Pid>,
    /// When it may be started again.
    again: Deadline,
}

impl OwnLog {
    /// Starts it. Our own output, and that of services without a logger, goes there from here on.
    pub(super) fn start(launcher: &Launcher) -> std::io::Result<Self> {
        let pipe = unix::fd::pipe()?;
        let service = Service { name: OWN.into(), pipe: Some(pipe) };
        let running = Some(launcher.start(&service, Role::Log)?);
        if let Some((_, write)) = &service.pipe {
            nix::unistd::dup2_stdout(write)?;
            nix::unistd::dup2_stderr(write)?;
        }
        Ok(Self { service, running, again: Deadline::after(START_FLOOR) })
    }

    /// Was it the one that ended?
    pub(super) fn ended(&mut self, pid: Pid) -> bool {
        let ours = self.running == Some(pid);
        if ours {
            self.running = None;
        }
        ours
    }

    /// When it is to be started again.
    pub(super) fn due(&self) -> Option<Deadline> {
        self.running.is_none().then_some(self.again)
    }

    /// Starts it again, if it is due.
    pub(super) fn attend(&mut self, launcher: &Launcher, voice: Voice) {
        if self.due().is_some_and(Deadline::passed) {
            self.again = Deadline::after(START_FLOOR);
            match launcher.start(&self.service, Role::Log) {
                Ok(pid) => self.running = Some(pid),
                Err(e) => voice.warn(&format!("unable to start {OWN}/log: {e}")),
            }
        }
    }

    /// Lets it read to the end, which comes when nobody holds the pipe any more; `others_write` says
    /// that services go on and hold it, so that it has to be told. Nothing is printed after this.
    pub(super) fn stop(mut self, launcher: &Launcher, signals: &Signals, others_write: bool) {
        let Some(pid) = self.running else { return };
        if let Ok(null) = OpenOptions::new().write(true).open("/dev/null") {
            let _ = nix::unistd::dup2_stdout(&null);
            let _ = nix::unistd::dup2_stderr(&null);
        }
        // Its supervise is to end with it, and not to start another.
        let _ = launcher.command(&self.service, Role::Log, b'x');
        self.service.pipe = None;
        let mut deadline = Deadline::after(if others_write { Duration::ZERO } else { PATIENCE });
        let mut steps = [Signal::SIGTERM, Signal::SIGKILL].into_iter();
        while self.running.is_some() {
            while signals.take_any().is_some() {}
            while let Ok(Some((ended, _))) = unix::child::reap() {
                self.ended(ended);
            }
            if self.running.is_none() {
                return;
            }
            if deadline.passed() {
                let Some(signal) = steps.next() else { return };
                // It is our unreaped child.
                let _ = nix::sys::signal::kill(pid, signal);
                deadline = Deadline::after(PATIENCE);
            }
            let _ = unix::wait::one(signals.as_fd(), Interest::Read, deadline);
        }
    }
}
