//! The message on descriptor 0: a file that every step reads from its beginning.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Longest piece of a line that is looked at, in bytes; lines of interest are shorter.
const PIECE: usize = 64 * 1024;

/// A message that can be read again and again.
#[derive(Debug)]
pub struct Message(File);

impl Message {
    /// The message on descriptor 0.
    ///
    /// # Errors
    /// It cannot be duplicated.
    pub fn of_stdin() -> io::Result<Self> {
        Ok(Self(File::from(io::stdin().as_fd().try_clone_to_owned()?)))
    }

    /// The message in this file.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// The file at its beginning. All descriptors of the message share one position.
    ///
    /// # Errors
    /// It is not a file (a pipe cannot go back).
    pub fn rewound(&self) -> io::Result<&File> {
        (&self.0).rewind()?;
        Ok(&self.0)
    }

    /// The descriptor, at the beginning of the message, for a child.
    ///
    /// # Errors
    /// As [`Message::rewound`].
    pub fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        self.rewound().map(AsFd::as_fd)
    }

    /// Its size in bytes.
    ///
    /// # Errors
    /// fstat failed.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    /// Copies the whole message.
    ///
    /// # Errors
    /// Reading or writing failed.
    pub fn copy_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut file = self.rewound()?;
        let mut buf = vec![0; 64 * 1024];
        loop {
            match file.read(&mut buf) {
                Ok(0) => return Ok(()),
                Ok(n) => out.write_all(&buf[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// How many header lines are exactly `line` (its newline and blanks at the end do not count)?
    /// The header ends at the first empty line, however long it is.
    ///
    /// # Errors
    /// Reading failed.
    pub fn count_line(&self, line: &[u8]) -> io::Result<usize> {
        let wanted = line.trim_ascii_end();
        let mut reader = BufReader::with_capacity(PIECE, self.rewound()?);
        let (mut piece, mut at_line_start, mut count) = (Vec::new(), true, 0);
        loop {
            piece.clear();
            let most = u64::try_from(PIECE).unwrap_or(u64::MAX);
            if Read::take(&mut reader, most).read_until(b'\n', &mut piece)? == 0 {
                return Ok(count);
            }
            let ends = piece.ends_with(b"\n");
            if at_line_start && (ends || piece.len() < PIECE) {
                match piece.trim_ascii_end() {
                    b"" if !piece.starts_with(b" ") && !piece.starts_with(b"\t") => return Ok(count),
                    text if text == wanted => count += 1,
                    _ => {}
                }
            }
            at_line_start = ends;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_in_the_header_only() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(
            b"Delivered-To: a@b\nX: 1\nDelivered-To: a@b\ndelivered-to: a@b\n\nDelivered-To: a@b\n",
        )
        .unwrap();
        let message = Message::new(file);
        assert_eq!(message.count_line(b"Delivered-To: a@b\n").unwrap(), 2);
        assert_eq!(message.count_line(b"Delivered-To: a@\n").unwrap(), 0);
        let mut long = tempfile::tempfile().unwrap();
        let filler = [b"X: ".to_vec(), vec![b'x'; 200_000], b"Delivered-To: a@b\n".to_vec()].concat();
        long.write_all(
            &[&filler[..], b"Delivered-To: a@b\n \nDelivered-To: a@b\r\n\r\nDelivered-To: a@b\n"].concat(),
        )
        .unwrap();
        assert_eq!(Message::new(long).count_line(b"Delivered-To: a@b\n").unwrap(), 2);
        let mut copy = Vec::new();
        message.copy_to(&mut copy).unwrap();
        assert_eq!(u64::try_from(copy.len()).unwrap(), message.size().unwrap());
    }
}
