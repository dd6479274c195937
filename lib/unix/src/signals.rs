//! Signals as events on a descriptor (signalfd), so that one `poll` waits for everything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocked signals that are read from a descriptor.
///
/// Make it before threads are started. Children must be started with [`restore`] (as
/// `child::Command` does), else they inherit the blocked mask.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
    mask: SigSet,
}

impl Signals {
    /// Blocks these signals and opens the descriptor that announces them.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub fn listen(signals: &[Signal]) -> io::Result<Self> {
        Self::listen_with_realtime(signals, &[])
    }

    /// As [`Signals::listen`], and to the real-time signals SIGRTMIN+n for each n of `realtime`, which
    /// only [`Signals::take_any`] hands out.
    ///
    /// # Errors
    /// EMFILE and the like; EINVAL for a number beyond SIGRTMAX.
    pub fn listen_with_realtime(signals: &[Signal], realtime: &[i32]) -> io::Result<Self> {
        let mask = signals.iter().copied().collect::<SigSet>();
        let mask = realtime.iter().try_fold(mask, |mask, &n| with_number(mask, libc::SIGRTMIN() + n))?;
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)?;
        // A signal that the parent left ignored (a background job of a shell, nohup) never arrives.
        signals.iter().try_for_each(|&signal| act_by_default(signal))?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { fd, mask })
    }

    /// The next signal that has arrived, `None` when there is none.
    pub fn take(&self) -> Option<Signal> {
        loop {
            if let Arrival::Ordinary(signal) = self.take_any()? {
                return Some(signal);
            }
        }
    }

    /// The next signal of any kind that has arrived, `None` when there is none.
    pub fn take_any(&self) -> Option<Arrival> {
        match self.fd.read_signal() {
            Ok(Some(info)) => {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                let real_time = |_| Arrival::RealTime(number - libc::SIGRTMIN());
                Some(Signal::try_from(number).map_or_else(real_time, Arrival::Ordinary))
            }
            Ok(None) | Err(_) => None,
        }
    }

    /// The signals this listens to.
    #[must_use]
    pub fn mask(&self) -> &SigSet {
        &self.mask
    }
}

/// A signal that has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// One with a name.
    Ordinary(Signal),
    /// SIGRTMIN plus this.
    RealTime(i32),
}

/// The set and one more signal, which may be one without a name.
fn with_number(mask: SigSet, number: i32) -> io::Result<SigSet> {
    let mut raw = *mask.as_ref();
    // SAFETY: adds a number to a live, initialised set; a number out of range is refused.
    if unsafe { libc::sigaddset(&raw mut raw, number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: an initialised set of signals that exist.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(raw) })
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Unblocks all signals and gives SIGPIPE its default action: what a child program expects.
///
/// Rust programs start with SIGPIPE ignored, and that is inherited through exec.
///
/// # Errors
/// sigprocmask(2) errors; none are known for these arguments.
pub fn restore() -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // SAFETY: SIG_DFL installs no handler, so no code of ours can run at a bad time.
    unsafe { nix::sys::signal::signal(Signal::SIGPIPE, nix::sys::signal::SigHandler::SigDfl)? };
    Ok(())
}

/// Gives the signals that a parent may have left ignored their default action again.
///
/// A supervisor calls it first, so that its services can be signalled wherever it was started from.
///
/// # Errors
/// None are known.
pub fn forget_ignored() -> io::Result<()> {
    use Signal::{
        SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH,
    };
    [SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH]
        .into_iter()
        .try_for_each(act_by_default)
}

fn act_by_default(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_DFL installs no handler, so no code of ours can run at a bad time.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigDfl)? };
    Ok(())
}

/// Ignores a signal in this process.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn ignore(signal: Signal) -> io::Result<()> {
    // SAFETY: SIG_IGN installs no handler.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn)? };
    Ok(())
}

/// Codes of [`exit_on`], by signal number.
static EXIT_CODES: [AtomicI32; 65] = [const { AtomicI32::new(0) }; 65];

/// When `signal` arrives, the process ends at once with `code`: no destructor runs, no buffer is written.
///
/// # Errors
/// EINVAL for SIGKILL and SIGSTOP.
pub fn exit_on(signal: Signal, code: i32) -> io::Result<()> {
    extern "C" fn handler(signal: libc::c_int) {
        let code = usize::try_from(signal).ok().and_then(|n| EXIT_CODES.get(n));
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(code.map_or(81, |c| c.load(Ordering::Relaxed))) }
    }
    if let Some(slot) = usize::try_from(signal as i32).ok().and_then(|n| EXIT_CODES.get(n)) {
        slot.store(code, Ordering::Relaxed);
    }
    // SAFETY: the handler only reads an atomic and calls _exit; both are async-signal-safe.
    unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::Handler(handler))? };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_signals_arrive_beside_the_others() {
        let signals = Signals::listen_with_realtime(&[Signal::SIGUSR1], &[5]).unwrap();
        // To this thread: the mask is the thread's.
        let send = |number: i32| {
            // SAFETY: a signal that this thread blocks, sent to itself.
            assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), number) }, 0);
        };
        send(libc::SIGRTMIN() + 5);
        send(libc::SIGUSR1);
        let mut got = [signals.take_any().unwrap(), signals.take_any().unwrap()];
        got.sort_by_key(|a| matches!(a, Arrival::RealTime(_)));
        assert_eq!(got, [Arrival::Ordinary(Signal::SIGUSR1), Arrival::RealTime(5)]);
        assert_eq!(signals.take_any(), None);
        send(libc::SIGRTMIN() + 5);
        assert_eq!(signals.take(), None, "only those with a name");
        assert!(Signals::listen_with_realtime(&[], &[1000]).is_err());
    }
}
