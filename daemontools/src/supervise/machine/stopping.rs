//! The way to a stop: script, signals, KILL; and services that hang.

use std::time::Duration;

use unix::Signal;

use super::{Action, Machine, Main, Script, Since, Stop, Target};

/// A service that hangs and does not die of ABRT gets KILL after this long, unless a file says otherwise.
pub const HANG_KILL: Duration = Duration::from_secs(10);

impl Machine {
    pub(super) fn begin_stop(&mut self, target: Target, restart: bool, out: &mut Vec<Action>) {
        let Main::Up(instance) = &mut self.main else { return };
        let pid = instance.pid;
        // A service that is stopping has other things to say than that it is alive.
        instance.hangs_at = None;
        let (kill_at, signalled, killed) =
            self.stop.map_or((None, false, false), |s| (s.kill_at, s.signalled, s.killed));
        self.stop = Some(Stop { target, restart, kill_at, signalled, killed });
        if self.script.is_none() {
            self.run_script(Script::Shutdown { pid }, out);
        }
    }

    pub(super) fn send_stop(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(kill_after) = self.instance().map(|i| i.limits.kill_after) else { return };
        let Some(stop) = &mut self.stop else { return };
        stop.kill_at = stop.kill_at.or(kill_after.map(|after| now + after));
        stop.signalled = true;
        let target = stop.target;
        self.stop_signals(target, out);
        if std::mem::take(&mut self.paused) {
            out.push(Action::Publish(Since::Before));
        }
    }

    fn stop_signals(&self, target: Target, out: &mut Vec<Action>) {
        out.push(Action::Signal(target, self.stop_signal));
        out.push(Action::Signal(target, Signal::SIGCONT));
    }

    /// Another process has become the service. One that came to us only now has not got the signals.
    pub(super) fn replaced(&mut self, pid: u32, out: &mut Vec<Action>) {
        let Main::Up(instance) = &mut self.main else { return };
        instance.pid = pid;
        out.push(Action::Publish(Since::Before));
        let Some(Stop { target, signalled, killed, .. }) = self.stop else { return };
        if killed {
            out.push(Action::Signal(Target::Group, Signal::SIGKILL));
        } else if signalled {
            self.stop_signals(target, out);
        }
    }

    pub(super) fn expire_stop(&mut self, now: Duration, out: &mut Vec<Action>) {
        let Some(stop) = &mut self.stop else { return };
        if stop.kill_at.is_some_and(|at| at <= now) {
            // Once is enough: nothing survives it but a process in the kernel's hands.
            stop.kill_at = None;
            stop.killed = true;
            out.push(Action::Signal(Target::Group, Signal::SIGKILL));
        }
    }

    pub(super) fn expire_watchdog(&mut self, now: Duration, out: &mut Vec<Action>) {
        let paused = self.paused;
        let Main::Up(instance) = &mut self.main else { return };
        if instance.kill_at.is_some_and(|at| at <= now) {
            instance.kill_at = None;
            out.push(Action::Signal(Target::Group, Signal::SIGKILL));
        }
        if instance.hangs_at.is_none_or(|at| at > now) {
            return;
        }
        if paused {
            // It cannot speak.
            instance.hangs_at = instance.limits.watchdog.map(|after| now + after);
            return;
        }
        instance.hangs_at = None;
        instance.kill_at = Some(now + instance.limits.kill_after.unwrap_or(HANG_KILL));
        out.push(Action::ReportHang);
        out.push(Action::Signal(Target::Process, Signal::SIGABRT));
    }
}
