//! What the machine is told and what it answers.

use std::time::Duration;

use unix::Signal;
use unix::child::Ending;

use crate::supervise::policy::Backoff;

/// Why the service is started; `run` gets the text as its second argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// supervise itself was started.
    AutoStartup,
    /// `u`.
    ManualStartup,
    /// `r`.
    ManualRestart,
    /// It ended by itself.
    AbnormalStartup,
    /// `o`.
    OneTime,
    /// The system could not start it before.
    SystemFailure,
}

impl Why {
    /// The text of the contract.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::AutoStartup => "auto startup",
            Self::ManualStartup => "manual startup",
            Self::ManualRestart => "manual restart",
            Self::AbnormalStartup => "abnormal startup",
            Self::OneTime => "one-time startup",
            Self::SystemFailure => "system failure",
        }
    }
}

/// How the service ended, as far as that can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// As its parent we know.
    Known(Ending),
    /// It was started by an earlier supervise.
    Unknown,
}

/// Who gets a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The process.
    Process,
    /// Its process group.
    Group,
}

/// A script beside `run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Script {
    /// Once before the first start.
    Init,
    /// Before the stop signals.
    Shutdown {
        /// Process id of the service.
        pid: u32,
    },
    /// After an unexpected end.
    Alert {
        /// Process id the service had.
        pid: u32,
        /// How it ended.
        death: Death,
    },
}

/// What the files of the service directory say about one instance of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// KILL this long after the stop signals.
    pub kill_after: Option<Duration>,
    /// It tells when it is ready.
    pub announces: bool,
    /// It is dead unless it says that it is alive at least so often.
    pub watchdog: Option<Duration>,
}

/// May the service be started now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Nothing is in the way.
    Open,
    /// A service that it depends on is not up.
    Service,
    /// The services it depends on are up, but get this much more time.
    Settling(Duration),
    /// A process of an earlier instance still runs.
    Locked,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// supervise has set everything up.
    Begin,
    /// The service of an earlier supervise is still running.
    Adopted {
        /// Its process id.
        pid: u32,
        /// Its limits.
        limits: Limits,
        /// Has it said that it is ready?
        ready: bool,
    },
    /// Answer to [`Action::CheckGate`].
    Gate {
        /// May it be started?
        gate: Gate,
        /// How soon it may be started again after that.
        backoff: Backoff,
    },
    /// Something happened that may have opened the gate.
    LookAgain,
    /// Answer to [`Action::Start`].
    Started {
        /// Its process id.
        pid: u32,
        /// Its limits.
        limits: Limits,
    },
    /// Answer to [`Action::Start`]: `run` cannot be executed.
    StartFailed,
    /// Answer to [`Action::Start`]: the system has no room for another process.
    ForkFailed,
    /// Another process is the service now: the first one ended and left children to us, or said so.
    Replaced {
        /// Its process id.
        pid: u32,
    },
    /// It says that it is ready.
    Ready,
    /// It says that it is stopping.
    Stopping,
    /// It says that it is alive.
    Alive,
    /// Answer to [`Action::RunScript`].
    ScriptStarted {
        /// KILL it after this long; `None`: never.
        limit: Option<Duration>,
    },
    /// Answer to [`Action::RunScript`]: there is none, or it cannot be executed.
    ScriptAbsent,
    /// The service ended.
    Ended {
        /// How.
        death: Death,
        /// It asks not to be started again.
        permanent: bool,
    },
    /// The script ended.
    ScriptEnded {
        /// Did it exit 0?
        success: bool,
    },
    /// A byte from the control FIFO.
    Control(u8),
    /// There are no more bytes in it.
    ControlDrained,
    /// SIGTERM, SIGINT: as `d` and `x`.
    Terminate,
    /// SIGQUIT: leave at once; the service keeps running.
    Abandon,
    /// Time has passed.
    Tick,
}

/// What begins with a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Nothing: the state is what it was.
    Before,
    /// A new state.
    Now,
    /// The service is ready.
    ReadyNow,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Find out whether the service may be started.
    CheckGate,
    /// Start `run`.
    Start(Why),
    /// Start a script.
    RunScript(Script),
    /// KILL the running script.
    KillScript,
    /// Send a signal to the service.
    Signal(Target, Signal),
    /// Publish the state.
    Publish(Since),
    /// Say that the service has not shown for too long that it is alive.
    ReportHang,
    /// Create the file `down`.
    CreateDownFile,
    /// The end of supervise.
    Exit,
}

/// Control bytes that only send a signal.
pub(super) fn plain_signal(byte: u8) -> Option<Signal> {
    Some(match byte {
        b'h' => Signal::SIGHUP,
        b'a' => Signal::SIGALRM,
        b'i' => Signal::SIGINT,
        b't' => Signal::SIGTERM,
        b'k' => Signal::SIGKILL,
        b'q' => Signal::SIGQUIT,
        b'1' | b'U' => Signal::SIGUSR1,
        b'2' => Signal::SIGUSR2,
        b'b' => Signal::SIGABRT,
        b'w' => Signal::SIGWINCH,
        _ => return None,
    })
}
