//! multilog: reads lines, selects, stamps, and keeps them in rotated log directories.
//!
//! ```text
//! fd 0 ──► source ──► lines (split, stamp, route by script) ──► dir (current, cut, rotate)
//! ```

pub mod cut;
pub mod dir;
pub mod lines;
pub mod pattern;
pub mod script;
pub mod sinks;
pub mod source;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use program::{
    Exit, ExitCodeDoc, Invocation, Loader, Operands, Place, Program, Source as From, Spec, Variable,
};
use tai::Ascending;
use unix::Signal;
use unix::clock::Deadline;
use unix::durable::{DataSync, Durability};
use unix::signals::Signals;
use unix::wait::Interest;

use dir::{LogDir, Options};
use lines::{Lines, Output};
use script::Script;
use sinks::Sinks;
use source::{Got, Source};

/// Between two tries of something that failed.
const RETRY: Duration = Duration::from_secs(5);

/// TERM ends, ALRM rotates, INT and HUP switch, CHLD tells of processors.
const SIGNALS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGALRM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];

/// The table of multilog.
pub static SPEC: Spec = Spec {
    name: "multilog",
    summary: "keep lines of a log in rotated files",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "action ...", min: 0, max: None },
    variables: &[
        Variable { name: "NOFSYNC", help: "If set, finished files are not forced to the disk." },
        Variable { name: "MULTILOG_NOTEE", help: "If set, input is consumed before it is written; a KILL then loses up to 64 KiB." },
        Variable {
            name: "MULTILOG_TERMWAIT",
            help: "Milliseconds to wait at TERM for the end of a line that has begun (default 2000).",
        },
        Variable { name: "MULTILOG_STRICT", help: "If set, an unknown action is an error." },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "end of input, or TERM; everything that was read is on the disk" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "a log directory or the input cannot be used" },
    ],
    description: "\
Reads lines and, for each, performs the actions in order.

t, only as the first: put a TAI64N label in front of the line; T: seconds since 1970 with microseconds. -pattern: deselect the line if it matches. +pattern: select it. \
(Lines start selected. * in a pattern matches everything up to the byte that follows it, or everything at the end; only the first 1000 bytes of a line are looked at.) \
F: patterns after it are those of the shell, with * ? and [a-z]; S: as at the start again. \
e: print the line on stderr, cut to 200 bytes. =file: make the first 1000 bytes the content of file. \
dir (starting with . or /): append the line to the log directory dir. \
uhost:port: send the first 1000 bytes to a syslog server (RFC 5424 over UDP). jidentifier: send them to the journal. Both take the priority from <N> at the start of the line \
and drop what cannot be sent at once.

For the directories after it: sN: finish a file at N bytes (at least 4096; 0 and the default: never). nN: keep N files, the current one included (default 10). \
RN: keep N bytes in finished files together. wsuffix: name finished files @label.suffix instead of @label.s. mMODE: permissions of files (default 0644; they are created with 0600). \
!command: pass each finished file through the command, which has the earlier state on descriptor 4 and writes the new one on 5. \
!!command: the same, but input goes on while one file is in work. z: compress finished files with gzip (you may want ws.gz). !: none of these again. \
For all directories: rN: finish the files every N seconds.

In a log directory, current is being written (owner's x bit set: complete and on the disk), @label.s is finished, @label.u was being written when multilog was killed. When writing \
fails, multilog waits and tries again, and drops nothing.

TERM: write what was read, up to the end of the line, and end. ALRM: finish the current files. INT: lines start deselected from \
now on. HUP: selected again. When multilog is killed, the lines it had not written yet are still in the pipe.",
    ..Spec::EMPTY
};

/// multilog.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Everything multilog is told.
#[derive(Debug)]
struct Settings {
    script: Script,
    options: Options,
    replay: bool,
    term_wait: Duration,
}

fn load(invocation: &Invocation) -> Result<Settings, Exit> {
    // The script has actions that look like options, so the options of the table (there are none) are not read.
    let script = Script::parse(&invocation.arguments).map_err(|e| {
        invocation.complain("fatal", e);
        Exit::PERMANENT
    })?;
    let env = &invocation.environment;
    let mut loader = Loader::new(env);
    if env.is_set("MULTILOG_STRICT") {
        for unknown in &script.unknown {
            loader.problem(format!("{}: unknown action", unknown.as_encoded_bytes().escape_ascii()));
        }
    }
    let data = if env.is_set("NOFSYNC") { DataSync::Off } else { DataSync::Full };
    let durability = Durability { data, directories: data == DataSync::Full };
    let (unsynced, unheard) = (loader.source(&["NOFSYNC"], &[]), loader.source(&["MULTILOG_NOTEE"], &[]));
    loader.show("fsync", durability.directories, unsynced);
    let replay = !env.is_set("MULTILOG_NOTEE");
    loader.show("replay", replay, unheard);
    let from = From { variable: Some("MULTILOG_TERMWAIT"), ..From::default() };
    let term_wait = Duration::from_millis(loader.number("termwait", from, 2000, 0..=3_600_000));
    let options = Options { durability, environment: env.clone() };
    invocation.finish(loader, Settings { script, options, replay, term_wait }, Exit::PERMANENT)
}

fn main(invocation: &Invocation) -> Exit {
    let settings = match load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match Logger::start(&settings).and_then(Logger::run) {
        Ok(()) => Exit::OK,
        Err(message) => {
            report("fatal", message);
            Exit::TEMPORARY
        }
    }
}

/// The log is not the place for troubles with the log; stderr may be closed.
fn report(level: &str, message: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "multilog: {level}: {message}");
}

struct Logger<'a> {
    settings: &'a Settings,
    signals: Signals,
    labels: Ascending,
    lines: Lines,
    dirs: Vec<LogDir>,
    status_files: Vec<File>,
    sinks: Sinks,
    /// When to try again what failed behind the scenes.
    attend_at: Option<Deadline>,
    rotate_at: Option<Deadline>,
    stop: bool,
    rotate: bool,
}

impl<'a> Logger<'a> {
    fn start(settings: &'a Settings) -> Result<Self, String> {
        unix::host::umask(0o022);
        let script = &settings.script;
        let signals = Signals::listen(&SIGNALS).map_err(|e| format!("unable to catch signals: {e}"))?;
        let mut labels = Ascending::default();
        let dirs = script
            .dirs
            .iter()
            .map(|spec| LogDir::open(spec, &settings.options, &mut labels).map_err(|e| e.to_string()))
            .collect::<Result<_, _>>()?;
        let status_files = script.status_files.iter().map(|path| {
            let open = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
            open.map_err(|e| format!("unable to open {}: {e}", path.display()))
        });
        let status_files = status_files.collect::<Result<_, _>>()?;
        let sinks = Sinks::open(&script.sinks)?;
        let lines = Lines::new(script.clone());
        let mut logger = Self {
            settings,
            signals,
            labels,
            lines,
            dirs,
            status_files,
            sinks,
            attend_at: None,
            rotate_at: None,
            stop: false,
            rotate: false,
        };
        logger.plan_rotation();
        Ok(logger)
    }

    fn run(mut self) -> Result<(), String> {
        let stdin = io::stdin();
        let mut source = Source::new(stdin.as_fd(), self.signals.as_fd(), self.settings.replay)
            .map_err(|e| format!("unable to set up the input: {e}"))?;
        let cannot_read = |e: io::Error| format!("unable to read the input: {e}");
        let mut out = Output::of(&self.settings.script);
        loop {
            self.take_signals();
            if self.stop {
                break;
            }
            if std::mem::take(&mut self.rotate) && !self.rotate_now(&source) {
                return Err(
                    "stopped while the log could not be written; the rest is still in the pipe".into()
                );
            }
            match source.look().map_err(cannot_read)? {
                Got::Bytes(n) => {
                    out.clear();
                    let label = self.labels.label(unix::clock::since_epoch());
                    self.lines.feed(source.bytes(n), label, &mut out);
                    if !self.write(&out, &source) {
                        return Err(
                            "stopped while the log could not be written; the rest is still in the pipe"
                                .into(),
                        );
                    }
                    source.consume(n).map_err(cannot_read)?;
                }
                Got::Nothing => source
                    .wait(self.signals.as_fd(), self.rotate_at.into_iter().chain(self.attend_at).min())
                    .map_err(|e| format!("unable to wait for input: {e}"))?,
                Got::End => break,
            }
        }
        self.finish(&source)
    }

    /// Completes the line that has begun and leaves everything on the disk.
    fn finish(&mut self, source: &Source<'_>) -> Result<(), String> {
        let mut out = Output::of(&self.settings.script);
        let deadline = Deadline::after(self.settings.term_wait);
        let label = self.labels.label(unix::clock::since_epoch());
        while self.stop && self.lines.in_line() {
            match source.next_byte(deadline) {
                Ok(Some(byte)) => self.lines.feed(&[byte], label, &mut out),
                Ok(None) => break,
                Err(e) => return Err(format!("unable to read the input: {e}")),
            }
        }
        self.lines.finish(&mut out);
        if !self.write(&out, source) {
            return Err("stopped while the log could not be written".into());
        }
        let Self { dirs, labels, .. } = self;
        dirs.iter_mut().try_for_each(|dir| dir.close(labels)).map_err(|e| e.to_string())
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.take() {
            match signal {
                Signal::SIGTERM => self.stop = true,
                Signal::SIGALRM => self.rotate = true,
                Signal::SIGINT => self.lines.switch(false),
                Signal::SIGHUP => self.lines.switch(true),
                // A processor may have ended.
                _ => self.attend_at = Some(Deadline::after(Duration::ZERO)),
            }
        }
        if self.attend_at.is_some_and(Deadline::passed) {
            self.attend();
        }
        if self.rotate_at.is_some_and(Deadline::passed) {
            self.rotate = true;
            self.plan_rotation();
        }
    }

    /// Looks after files that are processed in the background.
    fn attend(&mut self) {
        self.attend_at = None;
        for dir in &mut self.dirs {
            if let Err(e) = dir.attend(&mut self.labels) {
                report("warning", format_args!("{e}, trying again in {} seconds", RETRY.as_secs()));
                self.attend_at = Some(Deadline::after(RETRY));
            }
        }
    }

    /// The next multiple of the interval on the clock.
    fn plan_rotation(&mut self) {
        self.rotate_at = self.settings.script.rotate_every.map(|every| {
            let now = unix::clock::since_epoch();
            let next = Duration::from_secs((now.as_secs() / every + 1) * every);
            Deadline::after(next.saturating_sub(now))
        });
    }

    /// Writes everything, however long it takes. `false`: told to stop, and the input can be read
    /// again by the next logger.
    fn write(&mut self, out: &Output, source: &Source<'_>) -> bool {
        for at in 0..self.dirs.len() {
            let mut rest = out.dirs[at].as_slice();
            loop {
                let (taken, result) = self.dirs[at].append(rest, &mut self.labels);
                rest = &rest[taken..];
                match result {
                    Ok(()) => break,
                    Err(e) if !self.pause(&e, source) => return false,
                    Err(_) => {}
                }
            }
        }
        for (file, content) in self.status_files.iter().zip(&out.status_files) {
            if let Some(content) = content
                && let Err(e) = file.write_all_at(content, 0)
            {
                report("warning", format_args!("unable to write a status file: {e}"));
            }
        }
        for (sink, line) in &out.sinks {
            self.sinks.send(*sink, line, unix::clock::since_epoch());
        }
        if !out.stderr.is_empty() {
            // Nobody may be reading; the log goes on.
            let _ = io::stderr().write_all(&out.stderr);
        }
        true
    }

    fn rotate_now(&mut self, source: &Source<'_>) -> bool {
        for at in 0..self.dirs.len() {
            while let Err(e) = self.dirs[at].rotate_now(&mut self.labels) {
                if !self.pause(&e, source) {
                    return false;
                }
            }
        }
        true
    }

    /// After a failure: says so and waits. `false`: told to stop, which loses nothing with replay.
    fn pause(&mut self, error: &dir::Error, source: &Source<'_>) -> bool {
        report("warning", format_args!("{error}, pausing"));
        let deadline = Deadline::after(RETRY);
        while !deadline.passed() {
            self.take_signals();
            if self.stop && source.replays() {
                return false;
            }
            let fds = [(self.signals.as_fd(), Interest::Read)];
            if unix::wait::ready(&fds, Some(deadline)).is_err() {
                break;
            }
        }
        true
    }
}
