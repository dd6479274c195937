//! The message on descriptor 0.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use smtp::parameter::Body;

/// Largest message that is taken from a pipe, in bytes. A file may have any size.
const MAX_PIPED: usize = 64 << 20;
/// Bytes read at a time.
const PIECE: usize = 64 * 1024;

/// A message that can be read more than once, for the next host.
#[derive(Debug)]
pub(crate) struct Message {
    source: Source,
    length: u64,
    lines: u64,
    eight_bit: bool,
    whole_lines: bool,
}

#[derive(Debug)]
enum Source {
    File(File),
    Memory(Vec<u8>),
}

impl Message {
    /// Takes over descriptor 0 and looks at every byte once.
    pub(crate) fn from_standard_input() -> io::Result<Self> {
        let fd = unix::fd::inherited(0).ok_or_else(|| io::Error::other("descriptor 0 is not open"))?;
        Self::new(File::from(fd))
    }

    fn new(mut file: File) -> io::Result<Self> {
        let source = if file.metadata()?.is_file() {
            Source::File(file)
        } else {
            let mut bytes = Vec::new();
            let limit = u64::try_from(MAX_PIPED).unwrap_or(u64::MAX);
            (&mut file).take(limit + 1).read_to_end(&mut bytes)?;
            if bytes.len() > MAX_PIPED {
                return Err(io::Error::other("too large for a pipe"));
            }
            Source::Memory(bytes)
        };
        let mut message = Self { source, length: 0, lines: 0, eight_bit: false, whole_lines: true };
        let (mut length, mut lines, mut eight_bit, mut last) = (0u64, 0u64, false, b'\n');
        message.pieces(|piece| {
            length += u64::try_from(piece.len()).unwrap_or(u64::MAX);
            lines += piece.iter().map(|&b| u64::from(b == b'\n')).sum::<u64>();
            eight_bit |= !piece.is_ascii();
            last = piece.last().copied().unwrap_or(last);
            Ok(())
        })?;
        (message.length, message.lines, message.eight_bit) = (length, lines, eight_bit);
        message.whole_lines = last == b'\n';
        Ok(message)
    }

    /// Is the last line a whole line? (An empty message is.)
    pub(crate) fn ends_with_newline(&self) -> bool {
        self.whole_lines
    }

    /// Bytes on the wire, without doubled dots (RFC 1870).
    pub(crate) fn size(&self) -> u64 {
        self.length.saturating_add(self.lines)
    }

    /// Does it hold bytes above 127?
    pub(crate) fn body(&self) -> Body {
        if self.eight_bit { Body::EightBit } else { Body::SevenBit }
    }

    /// Hands the message to `take` in pieces, from its start.
    pub(crate) fn pieces(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match &self.source {
            Source::Memory(bytes) => bytes.chunks(PIECE).try_for_each(take),
            Source::File(file) => {
                let mut piece = vec![0; PIECE];
                let mut at = 0;
                loop {
                    let n = file.read_at(&mut piece, at)?;
                    if n == 0 {
                        return Ok(());
                    }
                    take(&piece[..n])?;
                    at += u64::try_from(n).map_err(io::Error::other)?;
                }
            }
        }
    }
}
