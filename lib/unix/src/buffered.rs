//! The one place for buffered input and output of programs that copy, filter and log.
//!
//! The rule is that of qmail's programs: **before an input waits, everything that was put out is out**.
//! So whoever reads the output never waits for a line that its program has already seen, and nothing
//! is lost in a buffer when the program sleeps. The rule is kept by the types: an [`Input`] can only be
//! read together with the outputs that depend on it, and it flushes them first.
//!
//! ```text
//! descriptor ──► Input (64 KiB) ──bytes──► the program ──► Output (64 KiB) ──► descriptor
//!                   │                                         ▲
//!                   └── flushes, before each read(2) ─────────┘
//! ```
//!
//! A filter is one call:
//!
//! ```
//! # let (input, mut output) = (&b"a\nb"[..], Vec::new());
//! use std::io::Write;
//! use unix::buffered::{Input, Output, filter};
//!
//! // In a program: Input::stdin() and Output::stdout().
//! filter(Input::new(input), Output::new(&mut output), |bytes, out| out.write_all(&bytes.to_ascii_uppercase()))?;
//! # assert_eq!(output, b"A\nB");
//! # Ok::<(), unix::buffered::Failure>(())
//! ```
//!
//! A program with more than one output names them where it reads:
//!
//! ```
//! # use std::io::Write;
//! # use unix::buffered::{Input, Output};
//! # let (mut a, mut b) = (Vec::new(), Vec::new());
//! # let (mut input, mut copy, mut log) = (Input::new(&b"one\ntwo"[..]), Output::new(&mut a), Output::new(&mut b));
//! let mut line = Vec::new();
//! while input.line(&mut [&mut copy, &mut log], &mut line)? {
//!     copy.write_all(&line)?;
//!     writeln!(log, "{} bytes", line.len())?;
//!     line.clear();
//! }
//! copy.flush()?;
//! log.flush()?;
//! # drop((copy, log));
//! # assert_eq!((a, b), (b"one\ntwo".to_vec(), b"4 bytes\n3 bytes\n".to_vec()));
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A program that waits for several descriptors with `wait::ready` flushes before that, and then calls
//! [`Input::fill`] of those that are ready; [`Input::buffer`] says whether there are bytes without waiting.
//!
//! What holds for all of them: an interrupted call is made again; a short write is continued; a
//! descriptor that somebody made non-blocking is waited for; an error is reported once, by the call
//! that met it, and what is put out after it goes nowhere.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use crate::fd::Raw;
use crate::wait::{Interest, ready};

/// Bytes of a buffer: what a pipe holds by default.
pub const SIZE: usize = 64 * 1024;

/// A descriptor that is read and written without giving up: an interrupted call is made again, and
/// where the descriptor is non-blocking the call waits all the same.
#[derive(Debug, Clone, Copy)]
pub struct Patient<'fd>(Raw<'fd>);

impl<'fd> Patient<'fd> {
    /// For a descriptor that somebody else keeps.
    #[must_use]
    pub fn new(fd: BorrowedFd<'fd>) -> Self {
        Self(Raw(fd))
    }

    fn patiently<T>(
        self,
        interest: Interest,
        mut call: impl FnMut(Raw<'fd>) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match call(self.0) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    ready(&[(self.0.0, interest)], None)?;
                }
                other => return other,
            }
        }
    }
}

impl Patient<'static> {
    /// Descriptor 0.
    #[must_use]
    pub fn stdin() -> Self {
        Self::standard(0)
    }

    /// One of the descriptors 0, 1 and 2 of this process.
    fn standard(number: RawFd) -> Self {
        // SAFETY: 0, 1 and 2 are open when `main` starts (the standard library opens those that are
        // not on /dev/null), and nothing in this workspace closes them.
        Self::new(unsafe { BorrowedFd::borrow_raw(number) })
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.patiently(Interest::Read, |mut fd| fd.read(buf))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.patiently(Interest::Write, |mut fd| fd.write(buf))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Patient<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0
    }
}

/// Buffered input that flushes outputs before it reads.
#[derive(Debug)]
pub struct Input<R> {
    reader: BufReader<R>,
    /// The end was seen: a terminal must not be asked again.
    over: bool,
}

impl Input<Patient<'static>> {
    /// Descriptor 0.
    #[must_use]
    pub fn stdin() -> Self {
        Self::new(Patient::standard(0))
    }
}

impl<R: Read> Input<R> {
    /// Reads from `source`, [`SIZE`] bytes at a time.
    pub fn new(source: R) -> Self {
        Self::with_capacity(SIZE, source)
    }

    /// Reads from `source`, at most `size` bytes at a time.
    pub fn with_capacity(size: usize, source: R) -> Self {
        Self { reader: BufReader::with_capacity(size, source), over: false }
    }

    /// The bytes at hand; when there are none, flushes `outputs` and reads more. Empty: the input is
    /// over. [`Input::consume`] says how many of them were used.
    ///
    /// # Errors
    /// The source cannot be read, or an output not be flushed.
    pub fn fill(&mut self, outputs: &mut [&mut dyn Write]) -> io::Result<&[u8]> {
        if self.reader.buffer().is_empty() && !self.over {
            outputs.iter_mut().try_for_each(|output| output.flush())?;
            // Our descriptors retry by themselves; other readers need not.
            while let Err(e) = self.reader.fill_buf() {
                if e.kind() != io::ErrorKind::Interrupted {
                    return Err(e);
                }
            }
            self.over = self.reader.buffer().is_empty();
        }
        Ok(self.reader.buffer())
    }

    /// The bytes at hand, without reading.
    #[must_use]
    pub fn buffer(&self) -> &[u8] {
        self.reader.buffer()
    }

    /// So many of the bytes at hand were used.
    pub fn consume(&mut self, count: usize) {
        self.reader.consume(count);
    }

    /// Appends the next line to `line`, its newline included; `Ok(false)` at the end of the input. Only the
    /// last line of an input can lack its newline.
    ///
    /// # Errors
    /// As [`Input::fill`].
    pub fn line(&mut self, outputs: &mut [&mut dyn Write], line: &mut Vec<u8>) -> io::Result<bool> {
        let mut any = false;
        loop {
            let bytes = self.fill(outputs)?;
            if bytes.is_empty() {
                return Ok(any);
            }
            any = true;
            let mut rest = bytes;
            let count = rest.read_until(b'\n', line)?;
            self.consume(count);
            if line.ends_with(b"\n") {
                return Ok(true);
            }
        }
    }

    /// Where the bytes come from.
    pub fn source(&self) -> &R {
        self.reader.get_ref()
    }
}

/// Buffered output. It is written when it is full, and when it or an [`Input`] that it is given to is
/// told to; **not** when it is dropped, because that could not report an error.
#[derive(Debug)]
pub struct Output<W: Write>(Option<BufWriter<W>>);

impl Output<Patient<'static>> {
    /// Descriptor 1.
    #[must_use]
    pub fn stdout() -> Self {
        Self::new(Patient::standard(1))
    }

    /// Descriptor 2.
    #[must_use]
    pub fn stderr() -> Self {
        Self::new(Patient::standard(2))
    }
}

impl<W: Write> Output<W> {
    /// Writes to `sink`, about [`SIZE`] bytes at a time; what does not fit the buffer goes there directly.
    pub fn new(sink: W) -> Self {
        Self::with_capacity(SIZE, sink)
    }

    /// Writes to `sink`, about `size` bytes at a time.
    pub fn with_capacity(size: usize, sink: W) -> Self {
        Self(Some(BufWriter::with_capacity(size, sink)))
    }

    /// Has an error been reported, so that what is put out goes nowhere?
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.0.is_none()
    }

    fn attempt<T>(
        &mut self,
        done: T,
        call: impl FnOnce(&mut BufWriter<W>) -> io::Result<T>,
    ) -> io::Result<T> {
        let Some(writer) = &mut self.0 else { return Ok(done) };
        let result = call(writer);
        if result.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted) {
            self.discard();
        }
        result
    }

    /// Drops what is in the buffer.
    fn discard(&mut self) {
        // Dropping a BufWriter would try once more.
        self.0.take().map(BufWriter::into_parts);
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(bytes.len(), |writer| writer.write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.attempt((), |writer| writer.write_all(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.attempt((), BufWriter::flush)
    }
}

impl<W: Write> Drop for Output<W> {
    fn drop(&mut self) {
        self.discard();
    }
}

/// Why [`filter`] ended early.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The input cannot be read.
    #[error("unable to read input: {0}")]
    Read(io::Error),
    /// The output cannot be written.
    #[error("unable to write output: {0}")]
    Write(io::Error),
}

/// Passes the input through `convert` to the output, to the end; what came of the bytes at hand is
/// written before more are read.
///
/// # Errors
/// See [`Failure`]. What `convert` fails with counts as a failure to write.
pub fn filter<R: Read, W: Write>(
    input: Input<R>,
    output: Output<W>,
    mut convert: impl FnMut(&[u8], &mut Output<W>) -> io::Result<()>,
) -> Result<(), Failure> {
    filter_to_end(input, output, |bytes, out| match bytes {
        Some(bytes) => convert(bytes, out),
        None => Ok(()),
    })
}

/// As [`filter`], for a filter that keeps something back: at the end of the input `convert` gets `None`.
///
/// # Errors
/// As [`filter`].
pub fn filter_to_end<R: Read, W: Write>(
    mut input: Input<R>,
    mut output: Output<W>,
    mut convert: impl FnMut(Option<&[u8]>, &mut Output<W>) -> io::Result<()>,
) -> Result<(), Failure> {
    loop {
        // Here, because an error of the output must not look like one of the input.
        output.flush().map_err(Failure::Write)?;
        let bytes = input.fill(&mut []).map_err(Failure::Read)?;
        let count = bytes.len();
        convert((count > 0).then_some(bytes), &mut output).map_err(Failure::Write)?;
        if count == 0 {
            return output.flush().map_err(Failure::Write);
        }
        input.consume(count);
    }
}

#[cfg(test)]
mod tests;
