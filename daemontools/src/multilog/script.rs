//! The script of multilog: what happens to each line.

use std::path::PathBuf;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Actions look at this many bytes of a line, timestamp included.
pub const VISIBLE: usize = 1000;
/// The smallest size limit of a file.
const MIN_SIZE: u64 = 4096;
/// Old files kept, unless told otherwise.
const DEFAULT_KEEP: usize = 10;

/// A log directory and its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirSpec {
    /// Where.
    pub path: PathBuf,
    /// A file is finished before it grows beyond this; `None`: never for its size.
    pub size: Option<u64>,
    /// So many files, the current one included.
    pub keep: usize,
    /// A command that every finished file goes through.
    pub processor: Option<OsString>,
}

/// One action, in the order of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Deselect(Vec<u8>),
    Select(Vec<u8>),
    Stderr,
    Status(usize),
    Dir(usize),
}

/// The whole script.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// A label in front of each line?
    pub stamp: bool,
    /// Finish the current files every so many seconds.
    pub rotate_every: Option<u64>,
    /// Log directories, in order.
    pub dirs: Vec<DirSpec>,
    /// Status files, in order.
    pub status_files: Vec<PathBuf>,
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
    /// How often to stderr.
    pub stderr: usize,
}

impl Route {
    fn clear(&mut self) {
        self.dirs.clear();
        self.status_files.clear();
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
        let (mut size, mut keep, mut processor) = (None, DEFAULT_KEEP, None);
        for (at, arg) in args.iter().enumerate() {
            let number = |text: &[u8]| {
                let text = std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                text.and_then(|t| t.parse::<u64>().ok()).ok_or_else(|| {
                    format!("{}: expected a number after the letter", arg.as_bytes().escape_ascii())
                })
            };
            match arg.as_bytes() {
                b"t" if at == 0 => script.stamp = true,
                b"e" => script.steps.push(Step::Stderr),
                [b'-', pattern @ ..] => script.steps.push(Step::Deselect(pattern.to_vec())),
                [b'+', pattern @ ..] => script.steps.push(Step::Select(pattern.to_vec())),
                [b'=', file @ ..] => {
                    script.steps.push(Step::Status(script.status_files.len()));
                    script.status_files.push(PathBuf::from(OsStr::from_bytes(file)));
                }
                [b's', digits @ ..] => {
                    size = Some(number(digits)?).filter(|&n| n > 0).map(|n| n.max(MIN_SIZE))
                }
                [b'n', digits @ ..] => keep = usize::try_from(number(digits)?).unwrap_or(usize::MAX).max(2),
                [b'r', digits @ ..] => script.rotate_every = Some(number(digits)?.max(1)),
                [b'!', command @ ..] => {
                    processor = (!command.is_empty()).then(|| OsStr::from_bytes(command).to_owned());
                }
                [b'.' | b'/', ..] => {
                    script.steps.push(Step::Dir(script.dirs.len()));
                    script.dirs.push(DirSpec {
                        path: PathBuf::from(arg),
                        size,
                        keep,
                        processor: processor.clone(),
                    });
                }
                _ => script.unknown.push(arg.clone()),
            }
        }
        Ok(script)
    }

    /// Does every line go to the only directory as it is?
    #[must_use]
    pub fn is_plain_copy(&self) -> bool {
        !self.stamp && self.steps == [Step::Dir(0)]
    }

    /// Decides about a line from its first [`VISIBLE`] bytes. `on`: do lines start selected?
    pub fn route(&self, line: &[u8], on: bool, route: &mut Route) {
        route.clear();
        let line = &line[..line.len().min(VISIBLE)];
        let mut selected = on;
        for step in &self.steps {
            match step {
                Step::Deselect(pattern) => selected = selected && !matches(pattern, line),
                Step::Select(pattern) => selected = selected || matches(pattern, line),
                Step::Stderr if selected => route.stderr += 1,
                Step::Status(file) if selected => route.status_files.push(*file),
                Step::Dir(dir) if selected => route.dirs.push(*dir),
                Step::Stderr | Step::Status(_) | Step::Dir(_) => {}
            }
        }
    }
}

/// Does the whole line match? `*` matches the longest string without the byte that follows it in the
/// pattern, and anything at the end.
#[must_use]
pub fn matches(pattern: &[u8], line: &[u8]) -> bool {
    let (mut pattern, mut line) = (pattern, line);
    loop {
        match (pattern, line) {
            ([], rest) => return rest.is_empty(),
            ([b'*'], _) => return true,
            ([b'*', stop, ..], _) => match memchr::memchr(*stop, line) {
                Some(at) => (pattern, line) = (&pattern[1..], &line[at..]),
                None => return false,
            },
            ([p, more @ ..], [l, rest @ ..]) if p == l => (pattern, line) = (more, rest),
            _ => return false,
        }
    }
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
    fn patterns() {
        for (pattern, line, want) in [
            ("", "", true),
            ("", "a", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "anything", true),
            ("a*", "a", true),
            ("*: *", "host: up", true),
            ("*: *", "host up", false),
            ("*end", "the end", false),
            ("*d", "the end", true),
            ("*b*", "aabb", true),
            ("**x", "a*x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), line.as_bytes()), want, "{pattern} {line}");
        }
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
        assert!(s.stamp);
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

    proptest! {
        #[test]
        fn matching_ends_and_literals_match_themselves(pattern in "[a*]{0,12}", line in "[ab*]{0,12}") {
            let _ = matches(pattern.as_bytes(), line.as_bytes());
            let literal = line.replace('*', "c");
            prop_assert!(matches(literal.as_bytes(), literal.as_bytes()));
        }
    }
}
