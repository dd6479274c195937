//! Bytes in, routed lines out, whatever chunks the bytes come in.

use tai::Label;

use super::script::{Route, Script, VISIBLE};

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
            stderr: Vec::new(),
        }
    }

    /// Forgets everything, keeps the room.
    pub fn clear(&mut self) {
        self.dirs.iter_mut().for_each(Vec::clear);
        self.status_files.iter_mut().for_each(|f| *f = None);
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
        Self { script, on: true, start: Vec::new(), route, decided: false, in_line: false }
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
            out.dirs[0].extend(chunk);
            self.in_line = last != b'\n';
            self.decided = true;
            self.route.dirs = vec![0];
            return;
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest);
            let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
            rest = after.get(1..).unwrap_or_default();
            self.piece(piece, end.is_some(), label, out);
        }
    }

    /// The input is over: an unfinished line gets its newline.
    pub fn finish(&mut self, label: Label, out: &mut Output) {
        if self.in_line {
            self.piece(b"", true, label, out);
        }
    }

    /// Is there nothing to decide, for this line and those to come?
    fn copies_all(&self) -> bool {
        self.on && self.script.is_plain_copy() && (!self.in_line || self.route.dirs == [0])
    }

    fn piece(&mut self, piece: &[u8], ends: bool, label: Label, out: &mut Output) {
        if !self.in_line {
            self.in_line = true;
            self.decided = false;
            self.start.clear();
            if self.script.stamp {
                self.start.extend(label.text());
                self.start.push(b' ');
            }
        }
        let mut piece = piece;
        if !self.decided {
            if self.start.is_empty() && ends && piece.len() <= VISIBLE {
                // The common case without timestamps: the line lies in the chunk whole.
                self.script.route(piece, self.on, &mut self.route);
                deliver(&self.route, piece, out);
                piece = b"";
                self.decided = true;
            } else {
                let room = VISIBLE.saturating_sub(self.start.len()).min(piece.len());
                self.start.extend(&piece[..room]);
                piece = &piece[room..];
                // With exactly VISIBLE bytes the line may be over or go on; its fate is the same.
                if !ends && self.start.len() < VISIBLE {
                    return;
                }
                self.script.route(&self.start, self.on, &mut self.route);
                deliver(&self.route, &self.start, out);
                self.decided = true;
            }
        }
        for &dir in &self.route.dirs {
            out.dirs[dir].extend(piece);
            if ends {
                out.dirs[dir].push(b'\n');
            }
        }
        if ends {
            self.in_line = false;
        }
    }
}

fn deliver(route: &Route, start: &[u8], out: &mut Output) {
    for &dir in &route.dirs {
        out.dirs[dir].extend(start);
    }
    for &file in &route.status_files {
        let mut content = start.to_vec();
        content.resize(STATUS_LEN, b'\n');
        out.status_files[file] = Some(content);
    }
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
        lines.finish(label, &mut out);
        out
    }

    #[test]
    fn lines_are_stamped_routed_and_ended() {
        let out = run(&["t", "-*b", "./x"], &[b"a\nb\n\nlast"]);
        let text = String::from_utf8(out.dirs[0].clone()).unwrap().replace("@400000000000000f00000000", "@");
        assert_eq!(text, "@ a\n@ \n@ last\n");
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
