//! tai64n and tai64nlocal: put time labels in front of lines, and make them readable.

use std::io::{self, Read, Write};
use std::time::Duration;

use program::{Exit, ExitCodeDoc, Invocation, Operands, OptionSpec, Place, Program, Spec};
use tai::Label;
use unix::clock::{CalendarTime, calendar_time};

const NO_OPERANDS: Operands = Operands { synopsis: "", min: 0, max: Some(0) };
const EXITS: &[ExitCodeDoc] = &[
    ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ExitCodeDoc { code: 111, meaning: "the input cannot be read or the output not be written" },
];
/// One read.
const CHUNK: usize = 64 * 1024;

/// The table of tai64n.
pub static TAI64N: Spec = Spec {
    name: "tai64n",
    summary: "put a time label in front of each line",
    section: 8,
    place: Place::Bin,
    operands: NO_OPERANDS,
    exits: EXITS,
    description: "Copies its input to its output with a TAI64N label and a blank in front of each line, taken when the first byte of the line is seen.",
    ..Spec::EMPTY
};

/// The table of tai64nlocal.
pub static TAI64NLOCAL: Spec = Spec {
    name: "tai64nlocal",
    summary: "make time labels readable",
    section: 8,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('u', "UTC instead of local time"),
        OptionSpec::flag('i', "ISO 8601, with the offset from UTC"),
    ],
    operands: NO_OPERANDS,
    exits: EXITS,
    description: "Copies its input to its output; a TAI64N label at the start of a line becomes date and time. Other lines stay as they are.",
    ..Spec::EMPTY
};

/// tai64n.
pub const PROGRAM: Program = Program { spec: &TAI64N, main };
/// tai64nlocal.
pub const TAI64NLOCAL_PROGRAM: Program = Program { spec: &TAI64NLOCAL, main: tai64nlocal };

/// How tai64nlocal writes a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    utc: bool,
    iso: bool,
}

fn main(invocation: &Invocation) -> Exit {
    if let Err(exit) = invocation.parse_all() {
        return exit;
    }
    let mut labels = tai::Ascending::default();
    let mut at_line_start = true;
    let copied = filter(|chunk, out| {
        let now = labels.label(unix::clock::since_epoch());
        stamp(chunk, now, &mut at_line_start, out);
    });
    done(copied)
}

fn tai64nlocal(invocation: &Invocation) -> Exit {
    let style = match invocation.parse_all() {
        Ok(parsed) => Style { utc: parsed.flag("u"), iso: parsed.flag("i") },
        Err(exit) => return exit,
    };
    let mut lines = Lines::new(style);
    let copied =
        filter(|chunk, out| lines.chunk(chunk, out)).and_then(|()| io::stdout().write_all(&lines.finish()));
    done(copied)
}

fn done(result: io::Result<()>) -> Exit {
    if result.is_ok() { Exit::OK } else { Exit::TEMPORARY }
}

/// Passes the input through `convert`; what came of a chunk is written before the next is read.
fn filter(mut convert: impl FnMut(&[u8], &mut Vec<u8>)) -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut buf = vec![0; CHUNK];
    let mut out = Vec::with_capacity(2 * CHUNK);
    loop {
        let n = match input.read(&mut buf) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        out.clear();
        convert(&buf[..n], &mut out);
        output.write_all(&out)?;
        output.flush()?;
    }
}

/// Puts a label in front of each line that begins in this chunk.
fn stamp(chunk: &[u8], now: Label, at_line_start: &mut bool, out: &mut Vec<u8>) {
    for line in chunk.split_inclusive(|&b| b == b'\n') {
        if *at_line_start {
            out.extend(now.text());
            out.push(b' ');
        }
        out.extend(line);
        *at_line_start = line.ends_with(b"\n");
    }
}

/// Converts labels at the start of lines, whatever chunks they come in.
struct Lines {
    style: Style,
    /// The start of a line that may still become a label.
    held: Vec<u8>,
    in_line: bool,
    last: Option<(u64, CalendarTime)>,
}

impl Lines {
    fn new(style: Style) -> Self {
        Self { style, held: Vec::new(), in_line: false, last: None }
    }

    fn chunk(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        for piece in chunk.split_inclusive(|&b| b == b'\n') {
            if self.in_line {
                out.extend(piece);
            } else if self.held.is_empty() && (piece.ends_with(b"\n") || piece.len() >= tai::TEXT_LEN) {
                self.start(piece, out);
            } else {
                self.held.extend(piece);
                if !self.held.ends_with(b"\n") && self.held.len() < tai::TEXT_LEN {
                    continue;
                }
                let held = std::mem::take(&mut self.held);
                self.start(&held, out);
            }
            self.in_line = !piece.ends_with(b"\n");
        }
    }

    fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    fn start(&mut self, line: &[u8], out: &mut Vec<u8>) {
        match Label::parse(line).and_then(|(label, rest)| Some((self.text(label)?, rest))) {
            Some((text, rest)) => {
                out.extend(text.bytes());
                out.extend(rest);
            }
            None => out.extend(line),
        }
    }

    fn text(&mut self, label: Label) -> Option<String> {
        let time: Duration = label.to_unix()?;
        let calendar = match self.last {
            Some((seconds, calendar)) if seconds == time.as_secs() => calendar,
            _ => calendar_time(time.as_secs(), self.style.utc)?,
        };
        self.last = Some((time.as_secs(), calendar));
        Some(render(calendar, time.subsec_nanos(), self.style.iso))
    }
}

fn render(t: CalendarTime, nanoseconds: u32, iso: bool) -> String {
    let gap = if iso { 'T' } else { ' ' };
    let mut text = format!(
        "{:04}-{:02}-{:02}{gap}{:02}:{:02}:{:02}.{nanoseconds:09}",
        t.year, t.month, t.day, t.hour, t.minute, t.second
    );
    if iso {
        let sign = if t.offset < 0 { '-' } else { '+' };
        let minutes = t.offset.abs() / 60;
        text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn local(chunks: &[&[u8]]) -> String {
        let mut lines = Lines::new(Style { utc: true, iso: false });
        let mut out = Vec::new();
        chunks.iter().for_each(|c| lines.chunk(c, &mut out));
        out.extend(lines.finish());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn labels_become_times_and_other_lines_stay() {
        let line = b"@4000000037c219bf2ef02e94 mail\n";
        assert_eq!(local(&[line]), "1999-08-24 04:04:05.787492500 mail\n");
        for stays in
            ["@notatai\n", "@4000 x\n", "plain\n", "@ffffffffffffffffffffffff x\n", "@", "", "@400000003\n"]
        {
            assert_eq!(local(&[stays.as_bytes()]), stays);
        }
        assert_eq!(local(&[b"@4000000037c219bf2ef02e94a\n"]), "1999-08-24 04:04:05.787492500a\n");
    }

    #[test]
    fn iso_times() {
        let t = CalendarTime { year: 2026, month: 1, day: 2, hour: 3, minute: 4, second: 5, offset: -19_800 };
        assert_eq!(render(t, 6, true), "2026-01-02T03:04:05.000000006-05:30");
    }

    #[test]
    fn stamps_stand_at_line_starts_only() {
        let (mut start, mut out) = (true, Vec::new());
        let label = Label::from_unix(Duration::from_secs(5));
        for chunk in [&b"a\nb"[..], b"c\n\n", b"last"] {
            stamp(chunk, label, &mut start, &mut out);
        }
        let text = String::from_utf8(out).unwrap().replace("@400000000000000f00000000 ", "<>");
        assert_eq!(text, "<>a\n<>bc\n<>\n<>last");
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(lines in proptest::collection::vec("(@4000000037c219bf2ef02e94|@40|)[@a0 ]{0,30}", 0..8), cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let text = lines.join("\n");
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut at = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|&c| { let piece = &text.as_bytes()[at..c]; at = c; piece }).collect();
            prop_assert_eq!(local(&chunks), local(&[text.as_bytes()]));
        }
    }
}
