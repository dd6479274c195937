//! Bytes in, routed lines out, whatever chunks the bytes come in.

use tai::Label;

use super::script::{Route, Script, Stamp, VISIBLE};
use crate::tai64n::stamp::stamp_of;

/// Bytes of a status file.
pub const STATUS_LEN: usize = VISIBLE + 1;
/// A line on stderr is cut after this.
const STDERR_LEN: usize = 200;

/// What came of one chunk.
#[derive(Debug, Default)]
pub struct Output {
    /// For each log directory, what to append.
    pub dirs: Vec<Vec<u8>>,
    /// For each status file, its new content.
    pub status_files: Vec<Option<Vec<u8>>>,
    /// Lines for other sinks, with their numbers: at most the first [`VISIBLE`] bytes, without the stamp.
    pub sinks: Vec<(usize, Vec<u8>)>,
    /// For stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Room for a script's outputs.
    #[must_use]
    pub fn of(script: &Script) -> Self {
        Self {
            dirs: vec![Vec::new(); script.dirs.len()],
            status_files: vec![None; script.status_files.len()],
            sinks: Vec::new(),
            stderr: Vec::new(),
        }
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.dirs.iter_mut().for_each(Vec::clear);
        self.status_files.iter_mut().for_each(|f| *f = None);
        self.sinks.clear();
        self.stderr.clear();
    }
}

/// Splits, stamps and routes.
#[derive(Debug)]
pub struct Lines {
    script: Script,
    on: bool,
    /// The start of the line, until it is long enough to be decided about.
    start: Vec<u8>,
    /// How much of it is the stamp.
    stamped: usize,
    /// Where the rest of the current line goes, once that is decided.
    route: Route,
    decided: bool,
    in_line: bool,
}

impl Lines {
    /// At the start of a line.
    #[must_use]
    pub fn new(script: Script) -> Self {
        let route = Route::default();
        Self { script, on: true, start: Vec::new(), stamped: 0, route, decided: false, in_line: false }
    }

    /// Do lines start selected from now on?
    pub fn switch(&mut self, on: bool) {
        self.on = on;
    }

    /// Has a line begun whose end has not come yet?
    #[must_use]
    pub fn in_line(&self) -> bool {
        self.in_line
    }

    /// Takes a chunk; `label` is for the lines that begin in it.
    pub fn feed(&mut self, chunk: &[u8], label: Label, out: &mut Output) {
        let Some(&last) = chunk.last() else { return };
        if self.copies_all() {
            out.dirs[0].extend_from_slice(chunk);
            self.in_line = last != b'\n';
            self.decided = true;
            self.route.dirs = vec![0];
            return;
        }
        let stamp = self.stamp(label);
        let copies_lines = self.on && self.script.selects_nothing();
        let mut rest = chunk;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
            if copies_lines && !self.in_line && end.is_some() {
                // The common case: nothing to decide, and the line lies in the chunk whole.
                for dir in &mut out.dirs {
                    dir.extend_from_slice(&stamp);
                    dir.extend_from_slice(&rest[..=piece.len()]);
                }
            } else {
                self.piece(piece, end.is_some(), &stamp, out);
            }
            rest = after.get(1..).unwrap_or_default();
        }
    }

    /// What stands in front of lines that begin now.
    fn stamp(&self, label: Label) -> Vec<u8> {
        match self.script.stamp {
            Stamp::None => Vec::new(),
            Stamp::Label => stamp_of(label).to_vec(),
            Stamp::Unix => {
                let seconds = label.unix_seconds().unwrap_or(0);
                format!("{seconds}.{:06} ", label.nanoseconds() / 1000).into_bytes()
            }
        }
    }

    /// The input is over: an unfinished line gets its newline.
    pub fn finish(&mut self, out: &mut Output) {
        if self.in_line {
            // Its stamp is there already.
            self.piece(b"", true, b"", out);
        }
    }

    /// Is there nothing to decide, for this line and those to come?
    fn copies_all(&self) -> bool {
        self.on && self.script.is_plain_copy() && (!self.in_line || (self.decided && self.route.dirs == [0]))
    }

    fn piece(&mut self, piece: &[u8], ends: bool, stamp: &[u8], out: &mut Output) {
        if !self.in_line {
            self.in_line = true;
            self.decided = false;
            self.start.clear();
            self.start.extend_from_slice(stamp);
            self.stamped = stamp.len();
        }
        let mut piece = piece;
        if !self.decided {
            if self.start.is_empty() && ends && piece.len() <= VISIBLE {
                // The common case without timestamps: the line lies in the chunk whole.
                self.script.route(piece, self.on, &mut self.route);
                deliver(&self.route, piece, 0, out);
                piece = b"";
                self.decided = true;
            } else {
                let room = VISIBLE.saturating_sub(self.start.len()).min(piece.len());
                self.start.extend_from_slice(&piece[..room]);
                piece = &piece[room..];
                // With exactly VISIBLE bytes the line may be over or go on; its fate is the same.
                if !ends && self.start.len() < VISIBLE {
                    return;
                }
                self.script.route(&self.start, self.on, &mut self.route);
                deliver(&self.route, &self.start, self.stamped, out);
                self.decided = true;
            }
        }
        for &dir in &self.route.dirs {
            out.dirs[dir].extend_from_slice(piece);
            if ends {
                out.dirs[dir].push(b'\n');
            }
        }
        if ends {
            self.in_line = false;
        }
    }
}

/// Puts the start of a line, `stamped` bytes of which are the stamp, where it belongs.
fn deliver(route: &Route, start: &[u8], stamped: usize, out: &mut Output) {
    for &dir in &route.dirs {
        out.dirs[dir].extend_from_slice(start);
    }
    for &file in &route.status_files {
        let mut content = start.to_vec();
        content.resize(STATUS_LEN, b'\n');
        out.status_files[file] = Some(content);
    }
    out.sinks.extend(route.sinks.iter().map(|&sink| (sink, start[stamped..].to_vec())));
    for _ in 0..route.stderr {
        match start.split_at_checked(STDERR_LEN) {
            Some((shown, more)) if !more.is_empty() => {
                out.stderr.extend(shown);
                out.stderr.extend(b"...");
            }
            _ => out.stderr.extend(start),
        }
        out.stderr.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn run(args: &[&str], chunks: &[&[u8]]) -> Output {
        let args: Vec<_> = args.iter().map(Into::into).collect();
        let script = Script::parse(&args).unwrap();
        let mut out = Output::of(&script);
        let mut lines = Lines::new(script);
        let label = Label::from_unix(Duration::from_secs(5));
        chunks.iter().for_each(|c| lines.feed(c, label, &mut out));
        lines.finish(&mut out);
        out
    }

    #[test]
    fn lines_are_stamped_routed_and_ended() {
        let out = run(&["t", "-*b", "./x"], &[b"a\nb\n\nlast"]);
        let text = String::from_utf8(out.dirs[0].clone()).unwrap().replace("@400000000000000f00000000", "@");
        assert_eq!(text, "@ a\n@ \n@ last\n");
    }

    #[test]
    fn unix_times_and_sinks() {
        let out = run(&["T", "./x", "jme", "-*b*", "ulog:514"], &[b"a\nb", b"b\n"]);
        assert_eq!(out.dirs[0], b"5.000000 a\n5.000000 bb\n");
        assert_eq!(out.sinks, [(0, b"a".to_vec()), (1, b"a".to_vec()), (0, b"bb".to_vec())]);
    }

    #[test]
    fn the_rest_of_a_long_line_follows_its_start() {
        let long = "y".repeat(5000);
        let out = run(&["-x*", "./x"], &[b"x", long.as_bytes(), b"\ny", long.as_bytes(), b"\n"]);
        assert_eq!(out.dirs[0], format!("y{long}\n").as_bytes());
    }

    #[test]
    fn stderr_and_status_files() {
        let line = "z".repeat(201);
        let out = run(&["e", "=f"], &[line.as_bytes(), b"\nshort\n"]);
        assert_eq!(out.stderr, format!("{}...\nshort\n", &line[..200]).as_bytes());
        let status = out.status_files[0].as_ref().unwrap();
        assert_eq!(status.len(), STATUS_LEN);
        assert_eq!(status[..6], *b"short\n");
        assert!(status[5..].iter().all(|&b| b == b'\n'));
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            lines in proptest::collection::vec(("[ab]{0,4}", 0usize..1100), 0..6),
            cuts in proptest::collection::vec(0usize..6000, 0..8),
            script in 0usize..4,
        ) {
            let script: &[&str] = [&["./x"][..], &["t", "./x"], &["-a*", "./x", "+*b", "./y"], &["e", "./x", "=s"]][script];
            let text: String = lines.iter().map(|(l, n)| format!("{l}{}\n", "c".repeat(*n))).collect();
            let text = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut at = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|&c| { let piece = &text[at..c]; at = c; piece }).collect();
            let (whole, cut) = (run(script, &[text]), run(script, &chunks));
            prop_assert_eq!(whole.dirs, cut.dirs);
            prop_assert_eq!(whole.stderr, cut.stderr);
            prop_assert_eq!(whole.sinks, cut.sinks);
            prop_assert_eq!(whole.status_files, cut.status_files);
        }

        #[test]
        fn a_plain_log_is_its_input(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..6)) {
            let slices: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let mut want = chunks.concat();
            if want.last().is_some_and(|&b| b != b'\n') {
                want.push(b'\n');
            }
            prop_assert_eq!(&run(&["./x"], &slices).dirs[0], &want);
            // The same through the general way.
            prop_assert_eq!(&run(&["+", "./x"], &slices).dirs[0], &want);
        }
    }
}
