//! qfilelog: appends its input to one file, which something else rotates.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::Signal;
use unix::buffered::Input;
use unix::clock::Deadline;
use unix::durable::Durability;
use unix::signals::Signals;
use unix::wait::{Interest, ready};

/// The table of qfilelog.
pub static SPEC: Spec = Spec {
    name: "qfilelog",
    summary: "append input to a file",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "file", min: 1, max: Some(1) },
    exits: &[
        ExitCodeDoc {
            code: 0,
            meaning: "end of input, TERM or INT; everything that was read is on the disk",
        },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc {
            code: 111,
            meaning: "the file cannot be opened, the input not be read, or told to end while the file cannot be written",
        },
    ],
    description: "\
Appends what it reads to the file. HUP: force it to the disk, close it and open it again, for programs that rotate it. When writing \
fails it says so, waits a minute and tries again. New files get the permissions that the umask leaves of 0666.",
    ..Spec::EMPTY
};

/// qfilelog.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Between two tries of something that failed.
const RETRY: Duration = Duration::from_secs(60);

fn main(invocation: &Invocation) -> Exit {
    let operands = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    match run(invocation, Path::new(&operands[0])) {
        Ok(()) => Exit::OK,
        Err(message) => {
            invocation.complain("fatal", message);
            Exit::TEMPORARY
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o666).open(path)
}

struct Log<'a> {
    invocation: &'a Invocation,
    path: &'a Path,
    /// `None`: it could not be opened again.
    file: Option<File>,
    signals: Signals,
    stop: bool,
    reopen: bool,
}

fn run(invocation: &Invocation, path: &Path) -> Result<(), String> {
    let signals = Signals::listen(&[Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT])
        .map_err(|e| format!("unable to catch signals: {e}"))?;
    let file = open(path).map_err(|e| format!("unable to open {}: {e}", path.display()))?;
    let mut log = Log { invocation, path, file: Some(file), signals, stop: false, reopen: false };
    let mut input = Input::stdin();
    loop {
        log.take_signals();
        if log.reopen {
            log.reopen = false;
            log.insist(Log::open_again)?;
        }
        if log.stop {
            break;
        }
        let fds = [(input.source().as_fd(), Interest::Read), (log.signals.as_fd(), Interest::Read)];
        if !ready(&fds, None).map_err(|e| format!("unable to wait for input: {e}"))?[0].read {
            continue;
        }
        let mut rest = input.fill(&mut []).map_err(|e| format!("unable to read input: {e}"))?;
        if rest.is_empty() {
            break;
        }
        let length = rest.len();
        log.insist(|log| log.write(&mut rest))?;
        input.consume(length);
    }
    log.insist(Log::sync)
}

impl Log<'_> {
    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGHUP => self.reopen = true,
                _ => self.stop = true,
            }
        }
    }

    /// Tries until it succeeds.
    fn insist(&mut self, mut step: impl FnMut(&mut Self) -> io::Result<()>) -> Result<(), String> {
        while let Err(e) = step(self) {
            let path = self.path.display();
            if self.stop {
                return Err(format!("unable to write to {path}: {e}"));
            }
            let seconds = RETRY.as_secs();
            self.invocation.complain(
                "warning",
                format_args!("unable to write to {path}: {e}, trying again in {seconds} seconds"),
            );
            let deadline = Deadline::after(RETRY);
            while !deadline.passed() && !self.stop && !self.reopen {
                // Only ends the wait early.
                let _ = ready(&[(self.signals.as_fd(), Interest::Read)], Some(deadline));
                self.take_signals();
            }
        }
        Ok(())
    }

    fn open_again(&mut self) -> io::Result<()> {
        self.sync()?;
        self.file = None;
        self.file = Some(open(self.path)?);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| Durability::default().sync_file(file))
    }

    /// Writes and shortens `rest`.
    fn write(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        // The disk may be full and the next file on another one.
        if std::mem::take(&mut self.reopen) || self.file.is_none() {
            self.open_again()?;
        }
        while let Some(file) = &mut self.file
            && !rest.is_empty()
        {
            match file.write(rest) {
                Ok(n) => *rest = &rest[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
