//! The message on descriptor 0: a file that every step reads from its beginning.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};

use message::header;

/// Longest header that is searched for traces of loops, in bytes.
const HEADER_MAX: usize = 16 << 20;

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

    /// The header.
    ///
    /// # Errors
    /// Reading failed, or the header has more bytes than any header needs.
    pub fn header(&self) -> io::Result<Vec<u8>> {
        let mut reader = BufReader::with_capacity(64 * 1024, self.rewound()?);
        match header::read(&mut reader, HEADER_MAX)? {
            Some(header) => Ok(header.bytes),
            None => Err(io::Error::other(format!("the header has more than {HEADER_MAX} bytes"))),
        }
    }

    /// How many header lines are exactly `line` (newline included)?
    ///
    /// # Errors
    /// As [`Message::header`].
    pub fn count_line(&self, line: &[u8]) -> io::Result<usize> {
        let header = self.header()?;
        let wanted = line.strip_suffix(b"\n").unwrap_or(line);
        Ok(header::fields(&header).filter(|f| f.raw.trim_ascii_end() == wanted.trim_ascii_end()).count())
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
        let mut copy = Vec::new();
        message.copy_to(&mut copy).unwrap();
        assert_eq!(u64::try_from(copy.len()).unwrap(), message.size().unwrap());
    }
}
