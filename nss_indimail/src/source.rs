//! Who answers, and when nobody is asked.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use lookup::Unavailable;
use lookup::client::{Connection, read};
use lookup::conf::Conf;
use lookup::frame::MAX_NAME;
use lookup::identity::{Reply, Request};
use unix::clock::Deadline;

/// How long one question may take unless the configuration says otherwise.
const PATIENCE: Duration = Duration::from_secs(1);

/// After a question that took all its time, the next ones fail at once for so long: a listing of ten
/// thousand files must not wait ten thousand times.
const RECENTLY: Duration = Duration::from_secs(2);

/// The service manager's unit of the daemon: while it starts it, nobody in it may wait for it.
const UNIT: &[u8] = b"indimail-nssd.service";

/// This process asks nobody: it is the daemon, or it must not depend on it.
static BLOCKED: AtomicBool = AtomicBool::new(false);

/// Until when (milliseconds of the monotonic clock) questions fail at once.
static FAILED_UNTIL: AtomicU64 = AtomicU64::new(0);

/// Switches this module off (or on again) in this process.
pub fn block(on: bool) {
    BLOCKED.store(on, Ordering::Relaxed);
}

/// Is it switched off?
#[must_use]
pub fn is_blocked() -> bool {
    BLOCKED.load(Ordering::Relaxed)
}

/// The configuration of a process that may ask.
#[must_use]
pub fn conf_of_this_process() -> Option<Conf> {
    match Source::of_this_process() {
        Ok(Some(Source::Socket(conf))) => Some(conf),
        Ok(None) | Err(_) => None,
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nobody is there to ask.
    Unavailable,
    /// Somebody is there, and cannot tell now.
    TryAgain,
}

/// Where answers come from.
#[derive(Debug)]
pub enum Source {
    /// A connection to `nssd` for each question.
    Socket(Conf),
}

impl Source {
    /// The source this process has; `None`: it has none and everything is absent.
    ///
    /// (A process that is marked, or that the service manager starts as the daemon's own unit.)
    ///
    /// # Errors
    /// The configuration is there and does not count.
    pub fn of_this_process() -> Result<Option<Self>, Fault> {
        if is_blocked() || is_own_unit() {
            return Ok(None);
        }
        Conf::load().map(|conf| Some(Self::Socket(conf))).map_err(|_| Fault::Unavailable)
    }

    /// Asks. `Ok(None)`: absent.
    ///
    /// # Errors
    /// There is no answer.
    pub fn ask(&self, request: &Request<'_>) -> Result<Option<Reply>, Fault> {
        match self {
            Self::Socket(conf) => {
                let patience = conf.timeout.unwrap_or(PATIENCE);
                ask_socket(&conf.nssd_socket, patience, request)
            }
        }
    }
}

/// Can a name be a mail account at all? The others are absent without asking anybody.
#[must_use]
pub fn may_be_user(name: &[u8]) -> bool {
    name.len() <= MAX_NAME && name.contains(&b'@')
}

/// Can a name be the group of a mail domain at all?
#[must_use]
pub fn may_be_group(name: &[u8]) -> bool {
    let ours = unix::mail_users::GROUPS.iter().any(|g| g.as_bytes() == name);
    !name.is_empty() && name.len() <= MAX_NAME && !ours && name != b"root"
}

fn ask_socket(path: &Path, patience: Duration, request: &Request<'_>) -> Result<Option<Reply>, Fault> {
    if unix::clock::monotonic_milliseconds() < FAILED_UNTIL.load(Ordering::Relaxed) {
        return Err(Fault::TryAgain);
    }
    let deadline = Deadline::after(patience);
    let mut answer = exchange(path, deadline, request);
    if answer == Err(Unavailable::Closed) {
        // It was stopped with our question in its hands; its successor may be there already.
        answer = exchange(path, deadline, request);
    }
    if answer == Err(Unavailable::TimedOut) {
        let until = unix::clock::monotonic_milliseconds();
        let window = u64::try_from(RECENTLY.as_millis()).unwrap_or(0);
        FAILED_UNTIL.store(until.saturating_add(window), Ordering::Relaxed);
    }
    match answer {
        Ok(None | Some(Reply::Absent)) => Ok(None),
        Ok(Some(Reply::Temporary)) => Err(Fault::TryAgain),
        // Shadow records are for root: to everybody else there are none.
        Ok(Some(Reply::Refused)) => Ok(None),
        Ok(reply) => Ok(reply),
        Err(Unavailable::TimedOut | Unavailable::Closed | Unavailable::Broken(_)) => Err(Fault::TryAgain),
        Err(_) => Err(Fault::Unavailable),
    }
}

fn exchange(path: &Path, deadline: Deadline, request: &Request<'_>) -> Result<Option<Reply>, Unavailable> {
    let connection = Connection::dial(path, deadline)?;
    if connection.peer().is_some_and(|p| u32::try_from(p.pid).is_ok_and(|pid| pid == std::process::id())) {
        // This process is the daemon. It cannot wait for itself.
        return Ok(None);
    }
    let mut bytes = Vec::new();
    request.encode(&mut bytes).map_err(|_| Unavailable::TooLong)?;
    let mut buffer = Vec::new();
    connection.exchange(&bytes, &mut buffer, deadline)?;
    read(&buffer, |frame| Reply::decode(request, frame)).map(Some)
}

/// The one variable that is looked at, and only compared; never in set-id programs.
fn is_own_unit() -> bool {
    const NAME: &std::ffi::CStr = c"SYSTEMD_ACTIVATION_UNIT";
    // SAFETY: `NAME` is a C string; the answer is null or a C string of the environment, which is
    // compared and not kept.
    unsafe {
        if libc::getauxval(libc::AT_SECURE) != 0 {
            return false;
        }
        let value = libc::getenv(NAME.as_ptr());
        !value.is_null() && std::ffi::CStr::from_ptr(value).to_bytes() == UNIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_ask_nobody() {
        assert!(!may_be_user(b"root"));
        assert!(!may_be_user(b""));
        assert!(!may_be_user(&[b'@'; 321]));
        assert!(may_be_user(b"a@b"));
        assert!(!may_be_group(b"qmail") && !may_be_group(b"indimail") && !may_be_group(b""));
        assert!(may_be_group(b"example.org"));
    }
}
