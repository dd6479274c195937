//! Which process is the service: signals to it, its end, and who follows it.

use std::fs;
use std::io;

use unix::child::Ending;
use unix::process::{self, Handle};
use unix::{Errno, Pid, Signal};

use super::{Driver, small_file};
use crate::supervise::machine::{Death, Event, Target};
use crate::supervise::policy;
use crate::supervise::tally;

/// Exit code that asks not to be started again, where a file allows it.
const PERMANENT: Ending = Ending::Exited(100);
/// How many parents are asked for on the way from a process to the service.
const MAX_GENERATIONS: usize = 64;

/// How many scripts are remembered that may have left something behind.
const MAX_SCRIPTS: usize = 16;

/// The service process.
#[derive(Debug)]
pub(super) enum Service {
    None,
    /// Our child.
    Child {
        pid: Pid,
        /// Leader of its process group, when it has one of its own.
        group: Option<Pid>,
    },
    /// Somebody else's child: of an earlier supervise, or of another process of the service.
    Survivor(Handle),
}

impl Service {
    pub(super) fn pid(&self) -> Option<Pid> {
        match self {
            Self::None => None,
            Self::Child { pid, .. } => Some(*pid),
            Self::Survivor(handle) => Some(handle.pid()),
        }
    }
}

impl Driver<'_> {
    pub(super) fn child_ended(&mut self, pid: Pid, ending: Ending) {
        if self.service.pid() == Some(pid) {
            self.info(&match ending {
                Ending::Exited(code) => format!("pid {pid} exited with code {code}"),
                Ending::Killed(signal) => format!("pid {pid} killed by signal {signal}"),
            });
            self.service_ended(Death::Known(ending));
        } else if self.script == Some(pid) {
            self.script = None;
            if !ending.is_success() {
                self.warn(&format!("script ended badly: {ending:?}"));
            }
            self.feed(Event::ScriptEnded { success: ending.is_success() });
        }
    }

    /// The held process has ended; one that is our child all the same has left its status.
    pub(super) fn survivor_ended(&mut self) -> io::Result<()> {
        let before = self.service.pid();
        self.reap()?;
        if before.is_some() && self.service.pid() == before {
            self.service_ended(Death::Unknown);
        }
        Ok(())
    }

    fn service_ended(&mut self, death: Death) {
        // The last words may have come at the same time.
        self.take_announcement();
        let before = std::mem::replace(&mut self.service, Service::None);
        if let Some(pid) = self.adopted().first().copied() {
            let group = match before {
                Service::Child { group, .. } => group,
                _ => None,
            };
            self.info(&format!("process {pid} goes on"));
            self.service = Service::Child { pid, group };
            self.replaced(pid);
            return;
        }
        self.announcement = None;
        let Death::Known(ending) = death else {
            self.feed(Event::Ended { death, permanent: false });
            return;
        };
        let when = self.labels.label(unix::clock::since_epoch());
        self.last = Some(ending);
        let permanent = ending == PERMANENT && fs::exists("permafail").unwrap_or(false);
        self.feed(Event::Ended { death, permanent });
        // Afterwards, for the next instance should not wait for it.
        self.count_death(tally::Death { when, ending });
    }

    fn count_death(&self, death: tally::Death) {
        let max = small_file("max-death-tally").and_then(|text| policy::number(&text));
        let max = max.and_then(|n| usize::try_from(n).ok()).unwrap_or(tally::DEFAULT_MAX);
        if let Err(e) = self.state.count_death(death, max) {
            self.warn(&format!("unable to write {}/death_tally: {e}", self.place.state.display()));
        }
    }

    /// Orphans of the service that have come to us.
    fn adopted(&self) -> Vec<Pid> {
        if !self.adopting {
            return Vec::new();
        }
        match process::children() {
            Ok(children) => children.into_iter().filter(|&c| !self.is_of_script(c)).collect(),
            Err(e) => {
                self.warn(&format!("unable to find the processes of the service: {e}"));
                Vec::new()
            }
        }
    }

    /// Every script leads a group of its own.
    fn is_of_script(&self, pid: Pid) -> bool {
        let group = || process::stat(pid).ok().flatten().map(|s| Pid::from_raw(s.group));
        Some(pid) == self.script
            || (!self.script_groups.is_empty() && group().is_some_and(|g| self.script_groups.contains(&g)))
    }

    /// A script has been started.
    pub(super) fn note_script(&mut self, pid: Pid) {
        self.script = Some(pid);
        if self.adopting {
            if self.script_groups.len() == MAX_SCRIPTS {
                self.script_groups.remove(0);
            }
            self.script_groups.push(pid);
        }
    }

    fn replaced(&mut self, pid: Pid) {
        let pid = pid.as_raw().unsigned_abs();
        if let Err(e) = self.state.remember_service(pid) {
            self.warn(&format!("unable to write {}/service: {e}", self.place.state.display()));
        }
        self.feed(Event::Replaced { pid });
    }

    /// The service says that another one of its processes is the main one. It must be in its group.
    pub(super) fn follow(&mut self, pid: u32) {
        let (Some(current), Ok(raw)) = (self.service.pid(), i32::try_from(pid)) else { return };
        let pid = Pid::from_raw(raw);
        if pid == current {
            return;
        }
        let group = |p| process::stat(p).ok().flatten().map(|s| s.group);
        let leads = group(current).filter(|&g| g != nix::unistd::getpgrp().as_raw());
        let held = Handle::open(pid).ok().filter(|_| leads.is_some() && group(pid) == leads);
        let Some(handle) = held else {
            self.warn(&format!("MAINPID={pid}: not in the process group of the service: passed over"));
            return;
        };
        self.service = Service::Survivor(handle);
        self.replaced(pid);
    }

    /// Is this process part of the service?
    pub(super) fn is_of_service(&self, pid: i32) -> bool {
        let Some(service) = self.service.pid() else { return false };
        let own = Pid::this().as_raw();
        let mut at = pid;
        for _ in 0..MAX_GENERATIONS {
            if at == service.as_raw() {
                return true;
            }
            match process::stat(Pid::from_raw(at)) {
                // Its first process may have ended before, and this one has come to us.
                Ok(Some(stat)) if stat.parent == own => {
                    return self.adopting && !self.is_of_script(Pid::from_raw(at));
                }
                Ok(Some(stat)) if stat.parent > 1 => at = stat.parent,
                _ => return false,
            }
        }
        false
    }

    /// The number cannot belong to anybody else: it is our unreaped child, or a held process.
    pub(super) fn send(&self, target: Target, signal: Signal) {
        let Some(pid) = self.service.pid() else { return };
        if self.adopting && matches!(self.service, Service::Child { .. }) {
            self.send_to_all(signal);
            return;
        }
        if target == Target::Group && nix::sys::signal::killpg(pid, signal) != Err(Errno::ESRCH) {
            return;
        }
        let sent = match &self.service {
            Service::Survivor(handle) => handle.signal(signal),
            _ => nix::sys::signal::kill(pid, signal).map_err(io::Error::from),
        };
        if let Err(e) = sent {
            self.warn(&format!("unable to send {signal} to {pid}: {e}"));
        }
    }

    /// To the group of the first process, and to every adopted process that is not in it.
    fn send_to_all(&self, signal: Signal) {
        let group = match self.service {
            Service::Child { group, .. } => group,
            _ => None,
        };
        if let Some(group) = group {
            let _ = nix::sys::signal::killpg(group, signal);
        }
        for pid in self.adopted() {
            let of = process::stat(pid).ok().flatten().map(|s| Pid::from_raw(s.group));
            if of.is_none() || of != group {
                let _ = nix::sys::signal::kill(pid, signal);
            }
        }
    }
}
