//! Copying between descriptors, several directions at once, each with a conversion.
//!
//! One thread and one `poll`; no descriptor is made non-blocking, because others may share it. A direction
//! ends with its source, or as soon as nobody can read its destination any more, even while the source is
//! silent. The end is passed on: the destination is shut down for writing and closed.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use unix::Errno;
use unix::clock::Deadline;
use unix::fd::Raw;
use unix::socket;
use unix::wait::{self, Interest, Ready};

/// Bytes read at a time.
const SIZE: usize = 64 * 1024;
/// What a pipe that can be written to takes without making the writer wait (POSIX's PIPE_BUF on Linux).
const ATOMIC: usize = 4096;

/// What is done with the bytes of a direction: `None` is their end.
pub type Convert<'a> = Box<dyn FnMut(Option<&[u8]>, &mut Vec<u8>) + 'a>;

/// Leaves the bytes as they are.
#[must_use]
pub fn plain<'a>() -> Convert<'a> {
    Box::new(|bytes, out| out.extend_from_slice(bytes.unwrap_or_default()))
}

/// One direction.
pub struct Direction<'a> {
    /// `None`: its end was seen.
    from: Option<OwnedFd>,
    /// `None`: over.
    to: Option<OwnedFd>,
    convert: Convert<'a>,
    /// Converted, not yet written from `written` on.
    pending: Vec<u8>,
    written: usize,
    to_socket: bool,
}

impl<'a> Direction<'a> {
    /// From one descriptor to another.
    #[must_use]
    pub fn new(from: OwnedFd, to: OwnedFd, convert: Convert<'a>) -> Self {
        // Found out by the first write.
        Self { from: Some(from), to: Some(to), convert, pending: Vec::new(), written: 0, to_socket: true }
    }

    fn is_over(&self) -> bool {
        self.to.is_none()
    }

    fn is_pending(&self) -> bool {
        self.written < self.pending.len()
    }

    fn end(&mut self) {
        self.from = None;
        if let Some(to) = self.to.take() {
            socket::finish_sending(&to);
        }
    }

    /// Takes a step after a wait; did anything move?
    fn step(&mut self, source: Ready, destination: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        let mut moved = false;
        if source.read
            && let Some(from) = &self.from
        {
            moved = true;
            let count = match Raw(from.as_fd()).read(buffer) {
                Ok(count) => Some(count),
                Err(e) => match e.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => None,
                    // The other end of a connection is gone.
                    _ if is_gone(&e) => Some(0),
                    _ => return Err(e),
                },
            };
            match count {
                Some(0) => {
                    self.from = None;
                    (self.convert)(None, &mut self.pending);
                }
                Some(count) => (self.convert)(Some(&buffer[..count]), &mut self.pending),
                None => {}
            }
        }
        // A socket is simply tried.
        if destination.write || (moved && self.to_socket) {
            moved |= self.write()?;
        }
        if !self.is_pending() {
            self.pending.clear();
            self.written = 0;
            if self.from.is_none() {
                self.end();
            }
        }
        if destination.closed {
            self.pending.clear();
            self.end();
        }
        Ok(moved)
    }

    fn write(&mut self) -> io::Result<bool> {
        let Some(to) = &self.to else { return Ok(false) };
        let rest = self.pending.get(self.written..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(false);
        }
        let sent = if self.to_socket {
            socket::send_now(to, rest)
        } else {
            Raw(to.as_fd()).write(&rest[..rest.len().min(ATOMIC)])
        };
        match sent {
            Ok(count) => {
                self.written += count;
                Ok(true)
            }
            Err(e) if e.raw_os_error() == Some(Errno::ENOTSOCK as i32) => {
                self.to_socket = false;
                Ok(false)
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => Ok(false),
            Err(e) if is_gone(&e) => {
                self.pending.clear();
                self.end();
                Ok(true)
            }
            Err(e) => Err(e),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
    )
}

/// When copying is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// All directions are over.
    All,
    /// This one is over, whatever the others do.
    One(usize),
}

/// Copies to the end. `idle`: how long nothing may move.
///
/// # Errors
/// A descriptor cannot be read or written; `TimedOut` when nothing moved for `idle`.
pub fn run(mut directions: Vec<Direction<'_>>, until: Until, idle: Option<Duration>) -> io::Result<()> {
    let mut buffer = vec![0; SIZE];
    let mut deadline = idle.map(Deadline::after);
    loop {
        let done = match until {
            Until::All => directions.iter().all(Direction::is_over),
            Until::One(index) => directions.get(index).is_none_or(Direction::is_over),
        };
        if done {
            return Ok(());
        }
        let mut watched = Vec::new();
        let mut whose = Vec::new();
        for (index, direction) in directions.iter().enumerate() {
            let Some(to) = &direction.to else { continue };
            if direction.is_pending() {
                watched.push((to.as_fd(), Interest::Write));
                whose.push((index, false));
                continue;
            }
            watched.push((to.as_fd(), Interest::Nothing));
            whose.push((index, false));
            if let Some(from) = &direction.from {
                watched.push((from.as_fd(), Interest::Read));
                whose.push((index, true));
            }
        }
        let answers = wait::ready(&watched, deadline)?;
        let mut steps = vec![(Ready::default(), Ready::default()); directions.len()];
        for (answer, (index, source)) in answers.into_iter().zip(whose) {
            if source {
                steps[index].0 = answer;
            } else {
                steps[index].1 = answer;
            }
        }
        let mut moved = false;
        for (direction, (source, destination)) in directions.iter_mut().zip(steps) {
            moved |= direction.step(source, destination, &mut buffer)?;
        }
        if moved {
            deadline = idle.map(Deadline::after);
        } else if deadline.is_some_and(Deadline::passed) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pair() -> (UnixStream, UnixStream) {
        UnixStream::pair().unwrap()
    }

    #[test]
    fn much_goes_both_ways_at_once() {
        // Both ends write all before they read: whoever waited in a write would never read.
        let ((left, left_far), (right, right_far)) = (pair(), pair());
        let (pipe_out, pipe_in) = unix::fd::pipe().unwrap();
        let text: Vec<u8> = (0..2_000_000u32).flat_map(u32::to_le_bytes).collect();
        let sending = |mut stream: UnixStream, text: Vec<u8>| {
            std::thread::spawn(move || {
                stream.write_all(&text).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                got
            })
        };
        let sender = sending(left_far, text.clone());
        let echo = sending(right_far, text.clone());
        let through_pipe = std::thread::spawn(move || {
            let mut got = Vec::new();
            std::fs::File::from(pipe_out).read_to_end(&mut got).unwrap();
            got
        });
        let (a, a2) = pair();
        drop(a2);
        let copy = |s: &UnixStream| OwnedFd::from(s.try_clone().unwrap());
        run(
            vec![
                Direction::new(copy(&left), copy(&right), plain()),
                Direction::new(copy(&right), pipe_in, plain()),
                // Nobody writes and nobody reads: over at once.
                Direction::new(copy(&a), copy(&a), plain()),
            ],
            Until::All,
            Some(Duration::from_secs(30)),
        )
        .unwrap();
        drop((left, right));
        assert!(echo.join().unwrap() == text && through_pipe.join().unwrap() == text);
        assert!(sender.join().unwrap().is_empty());
    }

    #[test]
    fn a_direction_nobody_reads_ends_while_its_source_is_silent() {
        let (source, _silent) = pair();
        let (reader, writer) = unix::fd::pipe().unwrap();
        drop(reader);
        run(vec![Direction::new(source.into(), writer, plain())], Until::All, None).unwrap();
    }

    #[test]
    fn silence_has_an_end() {
        let ((source, _silent), (to, _reader)) = (pair(), pair());
        let direction = Direction::new(source.into(), to.into(), plain());
        let error = run(vec![direction], Until::All, Some(Duration::from_millis(20))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn the_last_bytes_of_a_conversion_arrive() {
        let ((source, mut input), (to, mut output)) = (pair(), pair());
        input.write_all(b"a\r").unwrap();
        drop(input);
        let mut remove = crate::crlf::Remove::default();
        let convert: Convert<'_> = Box::new(move |bytes, out| match bytes {
            Some(bytes) => remove.convert(bytes, out),
            None => remove.finish(out),
        });
        run(vec![Direction::new(source.into(), to.into(), convert)], Until::One(0), None).unwrap();
        let mut got = String::new();
        output.read_to_string(&mut got).unwrap();
        assert_eq!(got, "a\r");
    }
}
