//! inotify: says what happens to files and in directories.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use unix::Signal;
use unix::buffered::{Output, Patient};
use unix::signals::Signals;
use unix::wait::Interest;

use crate::chain;

/// The table of inotify.
pub static SPEC: Spec = Spec {
    name: "inotify",
    summary: "print what happens to files and in directories",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('n', "do not read standard input"),
        OptionSpec::value(
            'd',
            "seconds",
            "after a report, wait this long for more before the next (default 0)",
        ),
    ],
    operands: Operands { synopsis: "path ...", min: 1, max: None },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "end of standard input" },
        ExitCodeDoc { code: 1, meaning: "TERM" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "a path cannot be watched, or the output cannot be written" },
    ],
    description: "\
Prints a line for each thing that happens to a path or, if it is a directory, in it: file or dir, the path, \
and one of created, opened, closed (after writing), deleted, oldname renamed[n], newname renamed[n]. The two names of one renaming have \
the same number n. Without -n, standard input is copied to standard error, and its end ends the program.",
    ..Spec::EMPTY
};

/// inotify.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// What is reported, in the order of the words in a line.
const EVENTS: [(AddWatchFlags, &str); 6] = [
    (AddWatchFlags::IN_CREATE, "created"),
    (AddWatchFlags::IN_OPEN, "opened"),
    (AddWatchFlags::IN_CLOSE_WRITE, "closed"),
    (AddWatchFlags::IN_DELETE, "deleted"),
    (AddWatchFlags::IN_MOVED_FROM, "oldname renamed"),
    (AddWatchFlags::IN_MOVED_TO, "newname renamed"),
];

fn main(invocation: &Invocation) -> Exit {
    let parsed = match invocation.parse_all() {
        Ok(parsed) => parsed,
        Err(exit) => return exit,
    };
    let delay = parsed.value("d").map_or(Some(0), |text| text.to_str().and_then(|t| t.parse().ok()));
    let Some(delay) = delay.map(Duration::from_secs) else {
        invocation.complain("fatal", "option -d: expected seconds");
        return Exit::PERMANENT;
    };
    match Watch::open(&parsed.operands).and_then(|watch| watch.report(!parsed.flag("n"), delay)) {
        Ok(exit) => exit,
        Err(why) => {
            invocation.complain("fatal", why);
            Exit::TEMPORARY
        }
    }
}

struct Watch {
    inotify: Inotify,
    paths: Vec<(WatchDescriptor, PathBuf)>,
    signals: Signals,
}

impl Watch {
    fn open(paths: &[OsString]) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| format!("unable to watch {what}: {}", chain::phrase(&e))
        };
        let signals = Signals::listen(&[Signal::SIGTERM]).map_err(failed("signals"))?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let inotify = inotify.map_err(io::Error::from).map_err(failed("files"))?;
        let mask = EVENTS.iter().fold(AddWatchFlags::IN_MOVE_SELF, |mask, (event, _)| mask | *event);
        let mut watched = Vec::new();
        for path in paths.iter().map(PathBuf::from) {
            let descriptor = inotify.add_watch(&path, mask).map_err(io::Error::from);
            let descriptor = descriptor.map_err(failed(&path.display().to_string()))?;
            watched.push((descriptor, path));
        }
        Ok(Self { inotify, paths: watched, signals })
    }

    fn report(&self, read_input: bool, delay: Duration) -> Result<Exit, String> {
        let stdin = io::stdin();
        let unwritable = |e: io::Error| format!("unable to write: {e}");
        let mut out = Output::stdout();
        loop {
            let mut fds =
                vec![(self.signals.as_fd(), Interest::Read), (self.inotify.as_fd(), Interest::Read)];
            fds.extend(read_input.then(|| (stdin.as_fd(), Interest::Read)));
            let ready = unix::wait::ready(&fds, None).map_err(|e| format!("unable to wait: {e}"))?;
            if ready[1].read {
                for event in self.inotify.read_events().unwrap_or_default() {
                    out.write_all(&self.lines(&event)).map_err(unwritable)?;
                }
                out.flush().map_err(unwritable)?;
            }
            if ready[0].read && self.signals.take().is_some() {
                return Ok(Exit(1));
            }
            if ready.get(2).is_some_and(|r| r.read) && !copy_some(&stdin) {
                return Ok(Exit::OK);
            }
            if ready[1].read && !delay.is_zero() {
                // TERM does not wait for the end of it.
                let deadline = unix::clock::Deadline::after(delay);
                let _ = unix::wait::one(self.signals.as_fd(), Interest::Read, deadline);
            }
        }
    }

    /// One watch may have several paths: then the first of them stands for it.
    fn lines(&self, event: &InotifyEvent) -> Vec<u8> {
        let path = self.paths.iter().find(|(descriptor, _)| *descriptor == event.wd).map(|(_, path)| path);
        let Some(path) = path else { return Vec::new() };
        lines(path, event.name.as_ref().map(|n| n.as_bytes()), event.mask, event.cookie)
    }
}

/// The lines for one event; `name` is that of the entry in a watched directory.
fn lines(path: &Path, name: Option<&[u8]>, mask: AddWatchFlags, cookie: u32) -> Vec<u8> {
    let kind: &[u8] = if mask.contains(AddWatchFlags::IN_ISDIR) { b"dir" } else { b"file" };
    let mut out = Vec::new();
    for (_, word) in EVENTS.iter().filter(|(event, _)| mask.contains(*event)) {
        out.extend([kind, b" ", path.as_os_str().as_bytes()].concat());
        if let Some(name) = name {
            out.extend([b"/", name].concat());
        }
        out.extend(format!(" {word}").bytes());
        if word.ends_with("renamed") {
            out.extend(format!("[{cookie}]").bytes());
        }
        out.push(b'\n');
    }
    out
}

/// Copies what is there from descriptor 0 to 2. Is there more to come?
fn copy_some(stdin: &io::Stdin) -> bool {
    let mut buffer = [0; 4096];
    match Patient::new(stdin.as_fd()).read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            // Nobody has to read it.
            let _ = io::stderr().write_all(&buffer[..count]);
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let line = |name: Option<&str>, mask, cookie| {
            let name = name.map(str::as_bytes);
            String::from_utf8(lines(Path::new("/a"), name, mask, cookie)).unwrap()
        };
        let dir = AddWatchFlags::IN_ISDIR;
        assert_eq!(line(Some("x"), AddWatchFlags::IN_CREATE | dir, 0), "dir /a/x created\n");
        assert_eq!(line(Some("x"), AddWatchFlags::IN_CLOSE_WRITE, 0), "file /a/x closed\n");
        assert_eq!(line(None, AddWatchFlags::IN_OPEN, 0), "file /a opened\n");
        assert_eq!(line(Some("x"), AddWatchFlags::IN_DELETE, 0), "file /a/x deleted\n");
        assert_eq!(line(Some("x"), AddWatchFlags::IN_MOVED_FROM, 7), "file /a/x oldname renamed[7]\n");
        assert_eq!(line(Some("y"), AddWatchFlags::IN_MOVED_TO, 7), "file /a/y newname renamed[7]\n");
        assert_eq!(line(None, AddWatchFlags::IN_IGNORED, 0), "");
    }
}
