//! Rewrites the start of each line, whatever chunks the lines come in.

use std::io::{self, Write};

/// What becomes of the start of a line.
pub trait Conversion {
    /// It looks at this many bytes of a line, and never beyond the newline.
    const LONGEST: usize;

    /// Can a line that begins so, with fewer than LONGEST bytes, still become one to convert? While
    /// it can, its bytes are held back.
    fn may_become(&self, start: &[u8]) -> bool;

    /// What takes the place of how many bytes at the start of `line`; `None`: the line stays.
    fn convert(&mut self, line: &[u8]) -> Option<(&[u8], usize)>;
}

/// Passes lines through a conversion.
#[derive(Debug)]
pub struct LineStarts<C> {
    conversion: C,
    /// The start of a line that is too short to decide about.
    held: Vec<u8>,
    in_line: bool,
}

impl<C: Conversion> LineStarts<C> {
    /// At the start of a line.
    pub fn new(conversion: C) -> Self {
        Self { conversion, held: Vec::new(), in_line: false }
    }

    /// Takes a chunk.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn feed(&mut self, chunk: &[u8], out: &mut impl Write) -> io::Result<()> {
        let mut chunk = chunk;
        if !self.held.is_empty() {
            let wanted = C::LONGEST - self.held.len();
            let line_end = memchr::memchr(b'\n', chunk).map_or(chunk.len(), |at| at + 1);
            let (more, rest) = chunk.split_at(line_end.min(wanted));
            self.held.extend_from_slice(more);
            chunk = rest;
            let mut held = std::mem::take(&mut self.held);
            if self.undecided(&held) {
                self.held = held;
                return Ok(());
            }
            self.whole(&held, out)?;
            held.clear();
            self.held = held;
        }
        self.whole(chunk, out)
    }

    /// The input is over: gives out what was held back.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn finish(&mut self, out: &mut impl Write) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        match self.conversion.convert(&held) {
            Some((text, used)) => {
                out.write_all(text)?;
                out.write_all(&held[used..])
            }
            None => out.write_all(&held),
        }
    }

    fn undecided(&self, start: &[u8]) -> bool {
        start.len() < C::LONGEST && !start.contains(&b'\n') && self.conversion.may_become(start)
    }

    /// Nothing is held back when this begins.
    fn whole(&mut self, chunk: &[u8], out: &mut impl Write) -> io::Result<()> {
        // What stays as it is goes out in one piece, from `copied` on.
        let (mut at, mut copied) = (0, 0);
        while at < chunk.len() {
            if !self.in_line {
                let line = &chunk[at..];
                if line.len() < C::LONGEST && self.undecided(line) {
                    out.write_all(&chunk[copied..at])?;
                    self.held.extend_from_slice(line);
                    return Ok(());
                }
                if let Some((text, used)) = self.conversion.convert(line) {
                    out.write_all(&chunk[copied..at])?;
                    out.write_all(text)?;
                    at += used;
                    copied = at;
                }
                self.in_line = true;
            }
            match memchr::memchr(b'\n', &chunk[at..]) {
                Some(end) => {
                    at += end + 1;
                    self.in_line = false;
                }
                None => break,
            }
        }
        out.write_all(&chunk[copied..])
    }
}

#[cfg(test)]
mod tests {
    use super::super::convert::{FromTai, ToUnix};
    use super::*;
    use proptest::prelude::*;

    fn run<C: Conversion>(conversion: C, chunks: &[&[u8]]) -> Vec<u8> {
        let (mut lines, mut out) = (LineStarts::new(conversion), Vec::new());
        chunks.iter().for_each(|chunk| lines.feed(chunk, &mut out).unwrap());
        lines.finish(&mut out).unwrap();
        out
    }

    #[test]
    fn what_cannot_become_a_label_is_not_held_back() {
        let (mut lines, mut out) = (LineStarts::new(ToUnix::default()), Vec::new());
        for (chunk, so_far) in [("name: ", "name: "), ("x\n@40", "name: x\n"), ("z", "name: x\n@40z")] {
            lines.feed(chunk.as_bytes(), &mut out).unwrap();
            assert_eq!(out, so_far.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(
            lines in proptest::collection::vec("(@4000000037c219bf2ef02e94|@40|[0-9]{1,21}\\.[0-9]{1,11}|)[@a0 ]{0,30}", 0..8),
            cuts in proptest::collection::vec(0usize..300, 0..8),
        ) {
            let text = lines.join("\n");
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let mut at = 0;
            let chunks: Vec<&[u8]> = cuts.iter().map(|&c| { let piece = &text.as_bytes()[at..c]; at = c; piece }).collect();
            prop_assert_eq!(run(ToUnix::default(), &chunks), run(ToUnix::default(), &[text.as_bytes()]));
            prop_assert_eq!(run(FromTai::default(), &chunks), run(FromTai::default(), &[text.as_bytes()]));
        }

        #[test]
        fn lines_without_labels_stay(text in "[b-z\n]{0,60}") {
            prop_assert_eq!(run(ToUnix::default(), &[text.as_bytes()]), text.as_bytes());
        }
    }
}
