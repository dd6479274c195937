//! The script of multilog: what happens to each line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::pattern::Pattern;

/// Actions look at this many bytes of a line, timestamp included.
pub const VISIBLE: usize = 1000;
/// The smallest size limit of a file.
const MIN_SIZE: u64 = 4096;
/// Old files kept, unless told otherwise.
const DEFAULT_KEEP: usize = 10;

/// What stands in front of each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stamp {
    /// Nothing.
    #[default]
    None,
    /// A TAI64N label.
    Label,
    /// Seconds since 1970 with microseconds.
    Unix,
}

/// What finished files go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Processor {
    /// A shell command. In the background, input goes on while it runs on at most one file.
    Command {
        /// For `sh -c`.
        command: OsString,
        /// Does input go on meanwhile?
        background: bool,
    },
    /// Compression; the state file is left alone.
    Gzip,
}

/// A log directory and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirSpec {
    /// Where.
    pub path: PathBuf,
    /// A file is finished before it grows beyond this; `None`: never for its size.
    pub size: Option<u64>,
    /// So many files, the current one included.
    pub keep: usize,
    /// Finished files have no more bytes than this together, and the oldest go first.
    pub total: Option<u64>,
    /// The suffix of finished files.
    pub suffix: OsString,
    /// Permissions of files; the owner's x bit comes on top for complete ones.
    pub mode: u32,
    /// What every finished file goes through.
    pub processor: Option<Processor>,
}

impl DirSpec {
    /// A directory with the limits that hold unless others are given.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            size: None,
            keep: DEFAULT_KEEP,
            total: None,
            suffix: "s".into(),
            mode: 0o644,
            processor: None,
        }
    }
}

/// Where lines go beside files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    /// Datagrams to a syslog server, `host:port`.
    Syslog(String),
    /// The journal, under this identifier.
    Journal(Vec<u8>),
}

/// One action, in the order of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Deselect(Pattern),
    Select(Pattern),
    Stderr,
    Status(usize),
    Dir(usize),
    Sink(usize),
}

/// The whole script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// In front of each line.
    pub stamp: Stamp,
    /// Finish the current files every so many seconds.
    pub rotate_every: Option<u64>,
    /// Log directories, in order.
    pub dirs: Vec<DirSpec>,
    /// Status files, in order.
    pub status_files: Vec<PathBuf>,
    /// Other places, in order.
    pub sinks: Vec<Sink>,
    /// Arguments that are no action.
    pub unknown: Vec<OsString>,
    steps: Vec<Step>,
}

/// Where one line goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Route {
    /// Numbers of log directories.
    pub dirs: Vec<usize>,
    /// Numbers of status files.
    pub status_files: Vec<usize>,
    /// Numbers of other sinks.
    pub sinks: Vec<usize>,
    /// How often to stderr.
    pub stderr: usize,
}

impl Route {
    fn clear(&mut self) {
        self.dirs.clear();
        self.status_files.clear();
        self.sinks.clear();
        self.stderr = 0;
    }
}

impl Script {
    /// Reads the arguments.
    ///
    /// # Errors
    /// An argument whose number cannot be read.
    pub fn parse(args: &[OsString]) -> Result<Self, String> {
        let mut script = Self::default();
        // What later directories get, and how later patterns are read.
        let (mut later, mut pattern): (_, fn(&[u8]) -> Pattern) = (DirSpec::new(""), Pattern::simple);
        for (at, arg) in args.iter().enumerate() {
            let expected =
                |what| format!("{}: expected {what} after the letter", arg.as_bytes().escape_ascii());
            let number = |text: &[u8], radix| {
                let text = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                text.and_then(|t| u64::from_str_radix(t, radix).ok())
            };
            let decimal = |text| number(text, 10).ok_or_else(|| expected("a number"));
            match arg.as_bytes() {
                b"t" if at == 0 => script.stamp = Stamp::Label,
                b"T" if at == 0 => script.stamp = Stamp::Unix,
                b"e" => script.steps.push(Step::Stderr),
                b"F" => pattern = Pattern::glob,
                b"S" => pattern = Pattern::simple,
                b"z" => later.processor = Some(Processor::Gzip),
                [b'-', text @ ..] => script.steps.push(Step::Deselect(pattern(text))),
                [b'+', text @ ..] => script.steps.push(Step::Select(pattern(text))),
                [b'=', file @ ..] => {
                    script.steps.push(Step::Status(script.status_files.len()));
                    script.status_files.push(PathBuf::from(OsStr::from_bytes(file)));
                }
                [b's', digits @ ..] => {
                    later.size = Some(decimal(digits)?).filter(|&n| n > 0).map(|n| n.max(MIN_SIZE));
                }
                [b'n', digits @ ..] => {
                    later.keep = usize::try_from(decimal(digits)?).unwrap_or(usize::MAX).max(2);
                }
                [b'R', digits @ ..] => later.total = Some(decimal(digits)?).filter(|&n| n > 0),
                [b'r', digits @ ..] => script.rotate_every = Some(decimal(digits)?.max(1)),
                [b'w', suffix @ ..] => {
                    later.suffix = suffix_of(suffix).ok_or_else(|| expected("a suffix"))?
                }
                [b'm', digits @ ..] => {
                    // The owner writes, and x has a meaning of its own.
                    let mode = number(digits, 8).and_then(|m| u32::try_from(m).ok());
                    let mode = mode.filter(|m| m & !0o666 == 0).ok_or_else(|| expected("an octal mode"))?;
                    later.mode = mode | 0o600;
                }
                [b'!', b'!', command @ ..] => later.processor = command_of(command, true),
                [b'!', command @ ..] => later.processor = command_of(command, false),
                [b'u', server @ ..] => {
                    let server = server_of(server).ok_or_else(|| expected("host:port"))?;
                    script.sink(Sink::Syslog(server));
                }
                [b'j', identifier @ ..] if !identifier.is_empty() => {
                    script.sink(Sink::Journal(identifier.to_vec()));
                }
                [b'.' | b'/', ..] => {
                    script.steps.push(Step::Dir(script.dirs.len()));
                    script.dirs.push(DirSpec { path: PathBuf::from(arg), ..later.clone() });
                }
                _ => script.unknown.push(arg.clone()),
            }
        }
        Ok(script)
    }

    fn sink(&mut self, sink: Sink) {
        self.steps.push(Step::Sink(self.sinks.len()));
        self.sinks.push(sink);
    }

    /// Does every line go to the directories alone, all of it to each?
    #[must_use]
    pub fn selects_nothing(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Dir(_)))
    }

    /// Does every line go to the only directory as it is?
    #[must_use]
    pub fn is_plain_copy(&self) -> bool {
        self.stamp == Stamp::None && self.steps == [Step::Dir(0)]
    }

    /// Decides about a line from its first [`VISIBLE`] bytes. `on`: do lines start selected?
    pub fn route(&self, line: &[u8], on: bool, route: &mut Route) {
        route.clear();
        let line = &line[..line.len().min(VISIBLE)];
        let mut selected = on;
        for step in &self.steps {
            match step {
                Step::Deselect(pattern) => selected = selected && !pattern.matches(line),
                Step::Select(pattern) => selected = selected || pattern.matches(line),
                Step::Stderr if selected => route.stderr += 1,
                Step::Status(file) if selected => route.status_files.push(*file),
                Step::Dir(dir) if selected => route.dirs.push(*dir),
                Step::Sink(sink) if selected => route.sinks.push(*sink),
                Step::Stderr | Step::Status(_) | Step::Dir(_) | Step::Sink(_) => {}
            }
        }
    }
}

/// The suffix goes into a file name, with a point in front.
fn suffix_of(text: &[u8]) -> Option<OsString> {
    let fits = !text.is_empty() && text.len() <= 64 && !text.contains(&b'/');
    fits.then(|| OsStr::from_bytes(text).to_owned())
}

/// Without a command there is no processor.
fn command_of(command: &[u8], background: bool) -> Option<Processor> {
    let command = OsStr::from_bytes(command).to_owned();
    (!command.is_empty()).then_some(Processor::Command { command, background })
}

fn server_of(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (host, port) = text.rsplit_once(':')?;
    (!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn script(args: &[&str]) -> Script {
        Script::parse(&args.iter().map(OsString::from).collect::<Vec<_>>()).unwrap()
    }

    fn routed(args: &[&str], line: &str) -> (Vec<usize>, usize) {
        let mut route = Route::default();
        script(args).route(line.as_bytes(), true, &mut route);
        (route.dirs, route.stderr)
    }

    #[test]
    fn selection_follows_the_order_of_the_script() {
        assert_eq!(routed(&["./a", "-*x", "./b", "+*", "./c"], "box"), (vec![0, 2], 0));
        assert_eq!(routed(&["-*", "+*fatal*", "e", "./a"], "info"), (vec![], 0));
        assert_eq!(routed(&["-*", "+*f*", "e", "./a"], "fatal"), (vec![0], 1));
        let mut route = Route::default();
        script(&["./a", "+x*", "./b"]).route(b"xy", false, &mut route);
        assert_eq!(route.dirs, [1], "switched off, lines start deselected");
    }

    #[test]
    fn limits_hold_for_later_directories() {
        let s = script(&["t", "./a", "s10", "n1", "!cmd", "./b", "s0", "/c"]);
        assert_eq!(s.stamp, Stamp::Label);
        let limits: Vec<_> = s.dirs.iter().map(|d| (d.size, d.keep, d.processor.is_some())).collect();
        assert_eq!(limits, [(None, 10, false), (Some(4096), 2, true), (None, 2, true)]);
        assert_eq!(script(&["./a", "t", "zzz"]).unknown, ["t", "zzz"]);
        assert!(Script::parse(&["sx".into()]).is_err());
    }

    #[test]
    fn only_the_start_of_a_line_is_looked_at() {
        let mut line = "x".repeat(VISIBLE);
        line.push_str("end");
        assert_eq!(routed(&["-*d", "./a"], &line).0, [0]);
        assert_eq!(routed(&["-x*", "./a"], &line).0, [0; 0]);
    }

    #[test]
    fn the_other_actions() {
        let s = script(&[
            "T",
            "F",
            "-[ab]*",
            "S",
            "-[ab]*",
            "R9000",
            "ws.gz",
            "z",
            "m0640",
            "./a",
            "!!cmd",
            "ujournal:514",
            "jmail",
            "./b",
        ]);
        assert_eq!((s.stamp, s.unknown.len()), (Stamp::Unix, 0));
        let a = DirSpec {
            total: Some(9000),
            suffix: "s.gz".into(),
            processor: Some(Processor::Gzip),
            mode: 0o640,
            ..DirSpec::new("./a")
        };
        let background = Processor::Command { command: "cmd".into(), background: true };
        let b = DirSpec { path: "./b".into(), processor: Some(background), ..a.clone() };
        assert_eq!(s.dirs, [a, b]);
        assert_eq!(s.sinks, [Sink::Syslog("journal:514".into()), Sink::Journal(b"mail".to_vec())]);
        let mut route = Route::default();
        s.route(b"[ab]", true, &mut route);
        assert_eq!((route.dirs.as_slice(), route.sinks.as_slice()), (&[][..], &[][..]), "a plain pattern");
        s.route(b"cab", true, &mut route);
        assert_eq!((route.dirs.as_slice(), route.sinks.as_slice()), (&[0, 1][..], &[0, 1][..]));
        s.route(b"bac", true, &mut route);
        assert!(route.dirs.is_empty(), "a shell pattern");
        for wrong in ["m", "m0777", "m8", "w", "wa/b", "uhost", "u:5", "uh:0", "Rx"] {
            assert!(Script::parse(&[wrong.into()]).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_script_is_read_or_refused(args in proptest::collection::vec("[-+=tTeFSzsnRrwmuj!./0-9a:*\\[]{0,6}", 0..8), line in "[a-c*]{0,9}") {
            let args: Vec<_> = args.iter().map(OsString::from).collect();
            if let Ok(script) = Script::parse(&args) {
                let mut route = Route::default();
                script.route(line.as_bytes(), true, &mut route);
                prop_assert!(route.dirs.iter().all(|&dir| dir < script.dirs.len()));
                prop_assert!(script.dirs.iter().all(|d| d.keep >= 2 && d.size.is_none_or(|s| s >= MIN_SIZE)));
            }
        }
    }
}
