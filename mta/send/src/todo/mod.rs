//! todo-proc: turns committed envelopes into work for qmail-send.
//!
//! ```text
//! lock/trigger, or every 1500 s ─► read todo ─► sort (info, local, remote) ─► qmail-clean removes todo ─► tell qmail-send
//! ```
//!
//! - `entries`: what lies in todo;
//! - [`rewrite`]: which channel, which address; pure.
//! - [`sort`]: the durable steps for one message.
//! - this file: the program, its controls and its loop.
//!
//! Bytes from qmail-send: `C` start, `H` read controls again, `X` finish. To qmail-send: `D` with a
//! letter and a number for a sorted message, `L` with a log line, `X` at the end, each with NUL.

mod entries;
pub mod rewrite;
pub mod sort;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mta_queue::layout::Queue;
use program::{
    Control, Environment, Exit, ExitCodeDoc, Invocation, Loader, Operands, Place as Where, Program, Source,
    Spec, Variable,
};
use unix::clock::Deadline;
use unix::durable::{Disk, Durability};
use unix::fd::Raw;
use unix::together::Together;
use unix::wait::{Interest, ready};

use crate::clean::Command;
use crate::cleaner::Cleaner;
use crate::log::Line;
use crate::place::{
    BIGTODO, CONFSPLIT, CONTROLDIR, Place, QUEUEDIR, USE_FDATASYNC, USE_FSYNC, USE_SYNCDIR, USE_SYNCFS,
    durability, host_source,
};
use entries::{Empty, Entry};
use rewrite::Rules;
use sort::Sorter;

/// Seconds between looks at todo without being woken.
const IDLE: u64 = 1500;
/// Messages that are forced out together.
const BATCH: usize = 50;
/// Seconds to wait after a system error.
const AFTER_ERROR: u64 = 123;

static SPEC: Spec = Spec {
    name: "todo-proc",
    summary: "sort queued messages into local and remote deliveries",
    section: 8,
    place: Where::Sbin,
    operands: Operands { synopsis: "[queue]", min: 0, max: Some(1) },
    variables: &[
        QUEUEDIR,
        CONFSPLIT,
        BIGTODO,
        Variable {
            name: "TODO_INTERVAL",
            help: "seconds between looks at todo, however often woken (0); overrides todointerval",
        },
        USE_FSYNC,
        USE_FDATASYNC,
        USE_SYNCDIR,
        USE_SYNCFS,
        CONTROLDIR,
    ],
    controls: &[
        Control { name: "locals", help: "domains delivered here (me); read again on HUP of qmail-send" },
        Control {
            name: "virtualdomains",
            help: "address or domain:prefix, delivered here as prefix-address",
        },
        Control { name: "percenthack", help: "domains where user%other@domain means user@other" },
        Control { name: "envnoathost", help: "domain for addresses without @ (me)" },
        Control { name: "todointerval", help: "as TODO_INTERVAL" },
        Control { name: "me", help: "name of this host" },
        Control { name: "conf-fsync", help: "as USE_FSYNC" },
        Control { name: "conf-fdatasync", help: "as USE_FDATASYNC" },
        Control { name: "conf-syncdir", help: "as USE_SYNCDIR" },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "told to finish, or qmail-send is gone" },
        ExitCodeDoc { code: 111, meaning: "cannot start, or qmail-clean is gone" },
    ],
    description: "Started by qmail-start beside qmail-send. Descriptors: 0 from and 1 to qmail-send, 2 to \
        and 3 from a qmail-clean of its own.\n\n\
        A message that qmail-queue has committed to todo is given its info, local and remote files; \
        when they are on the disk, todo is removed and qmail-send is told. After a crash at any point \
        the message is sorted again.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

#[derive(Debug)]
struct Settings {
    place: Place,
    controls: Controls,
}

/// What is read again on HUP.
#[derive(Debug)]
struct Controls {
    rules: Rules,
    durability: Durability,
    interval: Duration,
}

impl Controls {
    fn load(loader: &mut Loader<'_>) -> Self {
        let me = loader.control().line("me");
        let me = loader.take(me);
        let locals = loader.control().map("locals");
        let locals = loader.take(locals).or_else(|| me.as_ref().map(|m| control::Map::new(&[m])));
        if locals.is_none() {
            let (locals, me) = (loader.control().file("locals"), loader.control().file("me"));
            loader.problem(format_args!(
                "{}: missing: list the domains delivered here, or put this host's name into {}",
                locals.display(),
                me.display()
            ));
        }
        let mut map = |name: &str| {
            let answer = loader.control().map(name);
            loader.take(answer).unwrap_or_default()
        };
        let (percenthack, virtualdomains) = (map("percenthack"), map("virtualdomains"));
        let envnoathost = loader.control().line_or_me("envnoathost", "envnoathost").map(Some);
        let envnoathost = loader.take(envnoathost).unwrap_or_default();
        let source = host_source(loader, "envnoathost");
        loader.show("envnoathost", envnoathost.escape_ascii(), source);
        let from =
            Source { variable: Some("TODO_INTERVAL"), control: Some("todointerval"), ..Source::default() };
        let interval = Duration::from_secs(loader.number("todo interval", from, 0, 0..=86_400));
        Self {
            rules: Rules { envnoathost, locals: locals.unwrap_or_default(), percenthack, virtualdomains },
            durability: durability(loader),
            interval,
        }
    }
}

fn main(invocation: &Invocation) -> Exit {
    if let Err(exit) = invocation.parse() {
        return exit;
    }
    let mut loader = Loader::new(&invocation.environment);
    let settings = Settings { place: Place::load(&mut loader), controls: Controls::load(&mut loader) };
    let name = settings.place.short_name();
    // Descriptor 2 leads to qmail-clean; what went wrong is for the log of qmail-send.
    let tell = |problem: &str| tell_master(&[alert(&name, problem)]).unwrap_or_default();
    let settings = match invocation.finish_telling(loader, settings, Exit::TEMPORARY, tell) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match TodoProc::start(settings, &invocation.environment) {
        Ok(mut todo) => todo.run().unwrap_or_else(|e| {
            tell(&e.to_string());
            Exit::TEMPORARY
        }),
        Err(e) => {
            tell(&e.to_string());
            Exit::TEMPORARY
        }
    }
}

fn alert(name: &[u8], text: &str) -> Line {
    Line::new("alert: todo-proc: ").safe(name).text(": ").text(text)
}

/// Sends log lines to qmail-send.
fn tell_master(lines: &[Line]) -> io::Result<()> {
    let mut bytes = Vec::new();
    lines.iter().for_each(|l| put_line(&mut bytes, l));
    Raw(io::stdout().as_fd()).write_all(&bytes)
}

fn put_line(out: &mut Vec<u8>, line: &Line) {
    out.push(b'L');
    out.extend_from_slice(&line.clone().into_bytes());
    out.push(0);
}

struct TodoProc<'a> {
    settings: Settings,
    environment: &'a Environment,
    name: Vec<u8>,
    queue: Queue,
    cleaner: Cleaner,
    /// The queue's file system, where it can be forced out as a whole.
    together: Option<Together>,
    master: OwnedFd,
    trigger: Option<File>,
    warned: HashSet<PathBuf>,
    empty: Empty,
    started: bool,
    finish: bool,
}

impl<'a> TodoProc<'a> {
    fn start(settings: Settings, environment: &'a Environment) -> io::Result<Self> {
        let fd = |number| {
            let fd = unix::fd::inherited(number).ok_or_else(|| {
                io::Error::other(format!("descriptor {number} is closed: started without qmail-start"))
            })?;
            unix::fd::set_cloexec(&fd, true)?;
            Ok::<_, io::Error>(fd)
        };
        let (master, to, from) = (fd(0)?, fd(2)?, fd(3)?);
        unix::host::umask(0o077);
        let name = settings.place.short_name();
        let queue = settings.place.enter().map_err(|e| {
            io::Error::new(e.kind(), format!("cannot enter {}: {e}", settings.place.directory().display()))
        })?;
        let whole = environment.bytes("USE_SYNCFS") != Some(b"0");
        let together = if whole { Together::new(Path::new("."))? } else { None };
        Ok(Self {
            together,
            settings,
            environment,
            name,
            queue,
            cleaner: Cleaner::new(to, from),
            master,
            trigger: None,
            warned: HashSet::new(),
            empty: Empty::default(),
            started: false,
            finish: false,
        })
    }

    fn run(&mut self) -> io::Result<Exit> {
        self.work()?;
        // The master may be gone already.
        let _ = Raw(io::stdout().as_fd()).write_all(b"X\0");
        Ok(Exit::OK)
    }

    /// Until told to finish.
    fn work(&mut self) -> io::Result<()> {
        let mut next_scan = Deadline::after(Duration::from_secs(IDLE));
        let mut earliest = Deadline::after(Duration::ZERO);
        let mut pulled = false;
        while !self.finish {
            let ready = {
                let mut fds = vec![(self.master.as_fd(), Interest::Read), self.cleaner.watched()];
                if !pulled {
                    fds.extend(self.trigger.as_ref().map(|t| (t.as_fd(), Interest::Read)));
                }
                ready(&fds, Some(if pulled { earliest } else { next_scan }))?
            };
            let was_started = self.started;
            if ready[0].read {
                self.obey_master()?;
            }
            if ready[1].closed && !self.finish {
                return Err(lost_cleaner(io::ErrorKind::UnexpectedEof.into()));
            }
            let woken = ready.get(2).is_some_and(|trigger| trigger.read);
            pulled |= woken || next_scan.passed() || was_started != self.started;
            if self.started && !self.finish && pulled && earliest.passed() {
                // Opened anew before looking, so that a pull while we look is seen afterwards.
                self.trigger = None;
                self.trigger = self.open_trigger();
                if next_scan.passed() {
                    // Now and then everything is read, whatever the file system says.
                    self.empty = Empty::default();
                }
                let after = if self.scan()? { IDLE } else { AFTER_ERROR };
                next_scan = Deadline::after(Duration::from_secs(after));
                earliest = Deadline::after(self.settings.controls.interval);
                pulled = false;
            }
        }
        Ok(())
    }

    fn open_trigger(&self) -> Option<File> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let path = self.queue.trigger();
        match std::fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => Some(file),
            Err(e) => {
                let text = format!("cannot open {}: {e}; looking every {IDLE} s only", path.display());
                let _ = tell_master(&[alert(&self.name, &text)]);
                None
            }
        }
    }

    fn obey_master(&mut self) -> io::Result<()> {
        let mut bytes = [0u8; 64];
        let n = match Raw(self.master.as_fd()).read(&mut bytes) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(e) => return Err(e),
        };
        self.finish |= n == 0;
        for byte in &bytes[..n] {
            match byte {
                b'C' => self.started = true,
                b'H' => self.reload()?,
                b'X' => self.finish = true,
                _ => {}
            }
        }
        Ok(())
    }

    fn reload(&mut self) -> io::Result<()> {
        let mut loader = Loader::new(self.environment);
        let controls = Controls::load(&mut loader);
        match loader.finish(controls) {
            Ok(controls) => self.settings.controls = controls,
            Err(program::Problems(all)) => {
                let lines: Vec<Line> = all
                    .iter()
                    .map(|p| alert(&self.name, &format!("{p}; keeping the old controls")))
                    .collect();
                tell_master(&lines)?;
            }
        }
        Ok(())
    }

    /// Sorts everything in todo; `Ok(false)` when something has to be tried again soon.
    fn scan(&mut self) -> io::Result<bool> {
        let entries = match self.empty.entries(&self.queue, SystemTime::now()) {
            Ok(entries) => entries,
            Err(e) => {
                tell_master(&[alert(&self.name, &format!("cannot read todo: {e}"))])?;
                return Ok(false);
            }
        };
        self.warn_of_misplaced(&entries)?;
        let mut all_well = true;
        for batch in entries.chunks(BATCH) {
            all_well &= self.batch(batch)?;
            if ready(&[(self.master.as_fd(), Interest::Read)], Some(Deadline::after(Duration::ZERO)))?[0].read
            {
                self.obey_master()?;
                if self.finish {
                    break;
                }
            }
        }
        Ok(all_well)
    }

    /// Sorts these, forces all their files out together, and passes them on.
    fn batch(&self, entries: &[Entry]) -> io::Result<bool> {
        let sorter = Sorter {
            queue: &self.queue,
            disk: Disk::new(self.settings.controls.durability),
            together: self.together.as_ref().filter(|_| self.settings.controls.durability.is_full()),
            rules: &self.settings.controls.rules,
            name: &self.name,
        };
        let (mut sorted, mut places, mut alerts) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            match sorter.sort(entry.id, &entry.path(&self.queue)) {
                Ok(Some(one)) => {
                    sorted.push(one);
                    places.push(entry);
                }
                Ok(None) => {}
                Err(e) => alerts.push(alert(&self.name, &e.to_string())),
            }
        }
        if let Err(e) = sorter.force_out(&sorted) {
            alerts.push(alert(&self.name, &e.to_string()));
            sorted.clear();
        }
        let of = |entry: &&Entry| Command::Envelope(entry.subdirectory, entry.id);
        let commands: Vec<Command> = places.iter().take(sorted.len()).map(of).collect();
        let removed = self.cleaner.obey_all(&commands).map_err(lost_cleaner)?;
        for ((one, entry), removed) in sorted.iter().zip(places).zip(removed) {
            if removed {
                pass_on(one)?;
            } else {
                let path = entry.path(&self.queue);
                alerts.push(alert(&self.name, &format!("qmail-clean could not remove {}", path.display())));
            }
        }
        tell_master(&alerts)?;
        Ok(alerts.is_empty())
    }

    /// FIX-35: a file in the wrong place is sorted from where it lies; said once.
    fn warn_of_misplaced(&mut self, entries: &[Entry]) -> io::Result<()> {
        let misplaced = entries.iter().filter(|e| self.is_misplaced(e)).map(|e| e.path(&self.queue));
        let misplaced: HashSet<PathBuf> = misplaced.collect();
        for path in misplaced.difference(&self.warned) {
            tell_master(&[Line::new("warn: todo-proc: ")
                .safe(&self.name)
                .text(": incorrect split: ")
                .safe(path.as_os_str().as_bytes())])?;
        }
        self.warned = misplaced;
        Ok(())
    }

    fn is_misplaced(&self, entry: &Entry) -> bool {
        let expected = self.queue.shape().bigtodo.then(|| self.queue.subdirectory(entry.id));
        entry.subdirectory != expected
    }
}

/// Tells qmail-send about a message that is on the disk for good.
fn pass_on(sorted: &sort::Sorted) -> io::Result<()> {
    let mut bytes = Vec::new();
    sorted.lines.iter().for_each(|l| put_line(&mut bytes, l));
    bytes.extend_from_slice(&[b'D', sorted.letter()]);
    bytes.extend_from_slice(sorted.id.to_string().as_bytes());
    bytes.push(0);
    Raw(io::stdout().as_fd()).write_all(&bytes)
}

fn lost_cleaner(e: io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("lost qmail-clean: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locals_default_to_me_and_both_missing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let env = Environment::from_iter([("CONTROLDIR", dir.path().to_str().unwrap())]);
        let load = || {
            let mut loader = Loader::new(&env);
            let controls = Controls::load(&mut loader);
            loader.finish(controls)
        };
        assert!(load().unwrap_err().to_string().contains("/locals: missing"));
        std::fs::write(dir.path().join("me"), "mx.example\n").unwrap();
        let rules = load().unwrap().rules;
        assert!(rules.locals.contains(b"mx.example"));
        assert_eq!(rules.envnoathost, b"mx.example");
    }
}
