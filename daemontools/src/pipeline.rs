//! spipe and multipipe: services whose input is a pipe that others fill.
//!
//! ```text
//! spipe d1 d2 d3      supervise d1 ──► supervise d2 ──► supervise d3
//! multipipe dir       fd 0 ──► a copy for each of: supervise dir/a, supervise dir/b, ...
//! ```

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use unix::buffered::Input;
use unix::child::{Launch, wait_for};
use unix::clock::Deadline;
use unix::signals::Signals;
use unix::wait::{Interest, ready};
use unix::{Pid, Signal};

/// The table of spipe.
pub static SPIPE: Spec = Spec {
    name: "spipe",
    summary: "connect services by pipes",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "service service ...", min: 2, max: None },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "all services have ended" },
        ExitCodeDoc { code: 1, meaning: "wrong usage, or a supervise cannot be started" },
    ],
    description: "\
Starts one supervise(8) for each service directory, the last first, with the output of each connected to the input of the \
next. INT, QUIT or TERM: takes the services down with svc -dx, the first one first, and waits for each. \
supervise and svc are looked for in PATH.",
    usage_exit: 1,
    ..Spec::EMPTY
};

/// The table of multipipe.
pub static MULTIPIPE: Spec = Spec {
    name: "multipipe",
    summary: "give a copy of the input to each of several services",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "[dir]", min: 0, max: Some(1) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "end of input, or INT, QUIT or TERM; all services have ended" },
        ExitCodeDoc { code: 1, meaning: "the directory cannot be read at the start" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "reading failed later" },
    ],
    description: "\
Starts one supervise(8) for each directory in dir (default: the working directory), names that begin with a dot and supervise left out, and gives each \
a copy of its standard input. It looks for new directories every five seconds; a new service begins with what is read from then on, and the pipe of one whose directory is gone is \
closed. The slowest reader holds up the others; one that stops reading does not. At the end of the input, and at INT, QUIT or TERM, what was read is delivered (a service has five seconds to read it) and the services are taken \
down with svc -dx. supervise and svc are looked for in PATH.",
    ..Spec::EMPTY
};

/// spipe.
pub const SPIPE_PROGRAM: Program = Program { spec: &SPIPE, main: spipe };
/// multipipe.
pub const MULTIPIPE_PROGRAM: Program = Program { spec: &MULTIPIPE, main: multipipe };

const FAILED: Exit = Exit(1);
/// Bytes of one read of multipipe: so far the fastest reader is ahead of the slowest.
const SIZE: usize = 8192;
/// Between two looks for new directories.
const RESCAN: Duration = Duration::from_secs(5);
/// So long do services get at the end to read what they were given.
const DRAIN: Duration = Duration::from_secs(5);
const STOPPERS: [Signal; 3] = [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

fn supervise(dir: &Path, input: Option<BorrowedFd<'_>>, output: Option<BorrowedFd<'_>>) -> io::Result<Pid> {
    let mut launch = Launch::new("supervise").args([dir]).new_process_group();
    for (fd, number) in [(input, 0), (output, 1)] {
        if let Some(fd) = fd {
            launch = launch.descriptor(fd, number)?;
        }
    }
    launch.start()
}

/// Takes a service down and waits until its supervise has ended.
fn take_down(invocation: &Invocation, dir: &Path, pid: Pid) {
    let sent = Launch::new("svc").args([Path::new("-dx"), dir]).start().and_then(wait_for);
    match sent {
        Ok(ending) if ending.is_success() => {}
        // It may have ended by itself; otherwise this wait is for a person to mend.
        other => invocation.complain("warning", format_args!("svc -dx {}: {other:?}", dir.display())),
    }
    if let Err(e) = wait_for(pid) {
        invocation.complain("warning", format_args!("unable to wait for {}: {e}", dir.display()));
    }
}

fn spipe(invocation: &Invocation) -> Exit {
    let dirs: Vec<PathBuf> = match invocation.parse_all() {
        Ok(parsed) => parsed.operands.into_iter().map(PathBuf::from).collect(),
        Err(exit) => return exit,
    };
    let signals = match Signals::listen(&[&STOPPERS[..], &[Signal::SIGCHLD]].concat()) {
        Ok(signals) => signals,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to catch signals: {e}"));
            return FAILED;
        }
    };
    let mut running = Vec::new();
    if let Err((dir, e)) = connect(&dirs, &mut running) {
        invocation.complain("fatal", format_args!("unable to start supervise {}: {e}", dir.display()));
        running.iter().rev().for_each(|(dir, pid)| take_down(invocation, dir, *pid));
        return FAILED;
    }
    // First to last.
    running.reverse();
    loop {
        match signals.take() {
            Some(Signal::SIGCHLD) => {
                while let Ok(Some((pid, _))) = unix::child::reap() {
                    running.retain(|(_, p)| *p != pid);
                }
                if running.is_empty() {
                    return Exit::OK;
                }
            }
            Some(_) => break,
            None => {
                if let Err(e) = ready(&[(signals.as_fd(), Interest::Read)], None) {
                    invocation.complain("fatal", format_args!("unable to wait: {e}"));
                    break;
                }
            }
        }
    }
    running.iter().for_each(|(dir, pid)| take_down(invocation, dir, *pid));
    Exit::OK
}

/// Starts the last first.
fn connect<'d>(dirs: &'d [PathBuf], running: &mut Vec<(&'d Path, Pid)>) -> Result<(), (&'d Path, io::Error)> {
    let mut output: Option<OwnedFd> = None;
    for (at, dir) in dirs.iter().enumerate().rev() {
        let start = || -> io::Result<(Pid, Option<OwnedFd>)> {
            let (input, write) = if at == 0 { (None, None) } else { Some(unix::fd::pipe()?).unzip() };
            let to = output.as_ref().map(AsFd::as_fd);
            Ok((supervise(dir, input.as_ref().map(AsFd::as_fd), to)?, write))
        };
        let (pid, write) = start().map_err(|e| (dir.as_path(), e))?;
        running.push((dir, pid));
        output = write;
    }
    Ok(())
}

/// A service of multipipe.
struct Reader {
    pid: Pid,
    /// `None`: it stopped reading, or its directory is gone.
    pipe: Option<OwnedFd>,
}

struct Multipipe<'a> {
    invocation: &'a Invocation,
    dir: PathBuf,
    signals: Signals,
    readers: BTreeMap<PathBuf, Reader>,
    stop: bool,
}

fn multipipe(invocation: &Invocation) -> Exit {
    let dir = match invocation.parse_all() {
        Ok(parsed) => parsed.operands.first().map_or_else(|| PathBuf::from("."), PathBuf::from),
        Err(exit) => return exit,
    };
    let signals = match Signals::listen(&STOPPERS) {
        Ok(signals) => signals,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to catch signals: {e}"));
            return FAILED;
        }
    };
    let mut all = Multipipe { invocation, dir, signals, readers: BTreeMap::new(), stop: false };
    if let Err(e) = all.scan() {
        invocation.complain("fatal", format_args!("unable to read {}: {e}", all.dir.display()));
        return FAILED;
    }
    let copied = all.copy();
    all.drain();
    for (dir, Reader { pid, pipe }) in std::mem::take(&mut all.readers) {
        drop(pipe);
        take_down(invocation, &dir, pid);
    }
    match copied {
        Ok(()) => Exit::OK,
        Err(e) => {
            invocation.complain("fatal", format_args!("unable to copy the input: {e}"));
            Exit::TEMPORARY
        }
    }
}

impl Multipipe<'_> {
    /// Starts what is new, and closes the pipes of what is gone.
    fn scan(&mut self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            if name.starts_with(b".")
                || name == b"supervise"
                || !path.is_dir()
                || self.readers.contains_key(&path)
            {
                continue;
            }
            let start = || -> io::Result<Reader> {
                let (read, write) = unix::fd::pipe()?;
                unix::fd::set_nonblocking(&write, true)?;
                Ok(Reader { pid: supervise(&path, Some(read.as_fd()), None)?, pipe: Some(write) })
            };
            match start() {
                Ok(reader) => {
                    self.readers.insert(path, reader);
                }
                Err(e) => self
                    .invocation
                    .complain("warning", format_args!("unable to start supervise {}: {e}", path.display())),
            }
        }
        for (path, reader) in &mut self.readers {
            if !path.exists() {
                reader.pipe = None;
            }
        }
        Ok(())
    }

    fn take_signals(&mut self) {
        while self.signals.take().is_some() {
            self.stop = true;
        }
    }

    fn copy(&mut self) -> io::Result<()> {
        let mut input = Input::with_capacity(SIZE, unix::buffered::Patient::stdin());
        let mut next_scan = Deadline::after(RESCAN);
        loop {
            self.take_signals();
            if self.stop {
                return Ok(());
            }
            if next_scan.passed() {
                // A directory that cannot be read now may be there again later.
                if let Err(e) = self.scan() {
                    let dir = self.dir.display();
                    self.invocation.complain("warning", format_args!("unable to read {dir}: {e}"));
                }
                next_scan = Deadline::after(RESCAN);
            }
            let fds = [(input.source().as_fd(), Interest::Read), (self.signals.as_fd(), Interest::Read)];
            if !ready(&fds, Some(next_scan))?[0].read {
                continue;
            }
            let bytes = input.fill(&mut [])?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.deliver(bytes)?;
            let count = bytes.len();
            input.consume(count);
        }
    }

    /// Waits until all have read what they were given: a service that is taken down reads no more.
    fn drain(&self) {
        let deadline = Deadline::after(DRAIN);
        let full = |reader: &Reader| {
            reader.pipe.as_ref().is_some_and(|pipe| unix::fd::unread(pipe.as_fd()).is_ok_and(|n| n > 0))
        };
        while self.readers.values().any(full) && !deadline.passed() {
            // The kernel has no event for a pipe that was emptied.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Gives the bytes to all, the slowest included.
    fn deliver(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest: Vec<(PathBuf, &[u8])> = self.readers.keys().map(|path| (path.clone(), bytes)).collect();
        loop {
            for (path, rest) in &mut rest {
                let Some(reader) = self.readers.get_mut(path) else { continue };
                while let Some(pipe) = &reader.pipe
                    && !rest.is_empty()
                {
                    match unix::fd::Raw(pipe.as_fd()).write(rest) {
                        Ok(n) => *rest = &rest[n..],
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                        Err(e) => {
                            // It has its end; the others go on.
                            let path = path.display();
                            self.invocation
                                .complain("warning", format_args!("{path} does not read any more: {e}"));
                            reader.pipe = None;
                        }
                    }
                }
            }
            rest.retain(|(path, rest)| {
                !rest.is_empty() && self.readers.get(path).is_some_and(|r| r.pipe.is_some())
            });
            if rest.is_empty() {
                return Ok(());
            }
            let waiting: Vec<_> =
                rest.iter().filter_map(|(path, _)| self.readers.get(path)?.pipe.as_ref()).collect();
            let fds: Vec<_> = waiting.iter().map(|pipe| (pipe.as_fd(), Interest::Write)).collect();
            // What was read is delivered, whatever signals come; a directory that goes away ends the wait.
            ready(&fds, Some(Deadline::after(RESCAN)))?;
            for (path, reader) in &mut self.readers {
                if !path.exists() {
                    reader.pipe = None;
                }
            }
        }
    }
}
