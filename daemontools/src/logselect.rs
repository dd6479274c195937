//! logselect: the lines of a log directory between two times.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use flate2::read::MultiGzDecoder;
use program::{Exit, ExitCodeDoc, Invocation, Operands, Place, Program, Spec};
use tai::Label;
use unix::buffered::{Input, Output};

/// The table of logselect.
pub static SPEC: Spec = Spec {
    name: "logselect",
    summary: "print the lines of a log directory between two times",
    section: 8,
    place: Place::Bin,
    operands: Operands { synopsis: "dir start stop", min: 3, max: Some(3) },
    exits: &[
        ExitCodeDoc { code: 0, meaning: "all files were read" },
        ExitCodeDoc { code: 111, meaning: "wrong usage, or a file cannot be read" },
    ],
    description: "\
Prints the lines of dir/@* and dir/current whose TAI64N label is not before start and before stop, in the order of the files; lines without \
a label are printed too. start and stop are labels (@ and 24 hex digits), or files whose time of \
modification counts. dir has no slash in it. Files that multilog(8) compressed are read as well.",
    usage_exit: 111,
    ..Spec::EMPTY
};

/// logselect.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// A time from start, inclusive, to stop, exclusive.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first label of it.
    pub start: Label,
    /// The first label behind it.
    pub stop: Label,
}

impl Span {
    /// Is the line printed?
    #[must_use]
    pub fn selects(&self, line: &[u8]) -> bool {
        Label::parse(line).is_none_or(|(label, _)| self.start <= label && label < self.stop)
    }
}

fn main(invocation: &Invocation) -> Exit {
    let operands = match invocation.parse_all() {
        Ok(parsed) => parsed.operands,
        Err(exit) => return exit,
    };
    match select(&operands) {
        Ok(()) => Exit::OK,
        Err(message) => {
            invocation.complain("fatal", message);
            Exit::TEMPORARY
        }
    }
}

fn select(operands: &[OsString]) -> Result<(), String> {
    let [dir, start, stop] = operands else { return Err("expected dir, start and stop".into()) };
    if dir.as_bytes().contains(&b'/') {
        return Err(format!("{}: a directory here, without a slash, is expected", dir.display()));
    }
    let span = Span { start: time(start)?, stop: time(stop)? };
    let dir = Path::new(dir);
    let mut output = Output::stdout();
    for path in files(dir).map_err(|e| format!("unable to read {}: {e}", dir.display()))? {
        match copy(&path, span, &mut output) {
            // Rotated away in the meantime, or there is no current file yet.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(|e| format!("unable to copy {}: {e}", path.display()))?,
        }
    }
    output.flush().map_err(|e| format!("unable to write output: {e}"))
}

fn time(text: &OsStr) -> Result<Label, String> {
    if let Some((label, b"")) = Label::parse(text.as_bytes()) {
        return Ok(label);
    }
    let modified = fs::metadata(text).and_then(|meta| meta.modified());
    let modified = modified
        .map_err(|e| format!("{}: neither a label (@ and 24 hex digits) nor a file: {e}", text.display()))?;
    Ok(Label::from_unix(modified.duration_since(UNIX_EPOCH).unwrap_or_default()))
}

/// Finished files in the order of their labels, and the current one.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"@")) {
            files.push(path);
        }
    }
    files.sort();
    files.push(dir.join("current"));
    Ok(files)
}

fn copy(path: &Path, span: Span, output: &mut impl Write) -> io::Result<()> {
    let mut head = Vec::new();
    let mut file = File::open(path)?;
    Read::by_ref(&mut file).take(2).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(file);
    if head == [0x1f, 0x8b] {
        copy_lines(MultiGzDecoder::new(whole), span, output)
    } else {
        copy_lines(whole, span, output)
    }
}

fn copy_lines(source: impl Read, span: Span, output: &mut impl Write) -> io::Result<()> {
    let (mut input, mut line) = (Input::new(source), Vec::new());
    while input.line(&mut [], &mut line)? {
        if span.selects(&line) {
            output.write_all(&line)?;
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn lines_are_selected_by_their_label(at in 0u64..100, start in 0u64..100, stop in 0u64..100, rest in "[ -~]{0,9}") {
            let label = |seconds| Label::from_unix(Duration::from_secs(seconds));
            let span = Span { start: label(start), stop: label(stop) };
            let line = [&label(at).text()[..], rest.as_bytes()].concat();
            prop_assert_eq!(span.selects(&line), (start..stop).contains(&at));
            prop_assert!(span.selects(&line[1..]), "no label");
        }
    }
}
