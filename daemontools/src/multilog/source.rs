//! The input of multilog, read so that a KILL loses nothing.
//!
//! From a pipe the bytes are first duplicated with tee(2), and consumed only when they have been written
//! to the log. After a KILL the next logger finds them still there; what was written just before is then
//! written a second time. Only whole lines are consumed, so that the next logger starts at the
//! beginning of a line; an unfinished line is consumed when it grows too long or does not grow any more.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::{SFlag, fstat};
use unix::clock::Deadline;
use unix::fd::{Raw, pipe, splice, tee};
use unix::wait::{Interest, ready};

/// One read; a pipe holds no more by default.
pub const CHUNK: usize = 64 * 1024;
/// An unfinished line this long is not waited for.
const LONG_LINE: usize = 16 * 1024;
/// An unfinished line that does not grow for this long is taken as it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first look after an unfinished line: a writer that waited for room is running by then.
const FIRST_LOOK: Duration = Duration::from_micros(30);
/// From here on a wait between two looks is one in which a signal is noticed.
const LONG_WAIT: Duration = Duration::from_millis(1);

/// What the input has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// So many bytes are in the buffer.
    Bytes(usize),
    /// Nothing now: wait.
    Nothing,
    /// No more, ever.
    End,
}

/// The input.
#[derive(Debug)]
pub struct Source<'a> {
    input: BorrowedFd<'a>,
    buffer: Vec<u8>,
    copy: Option<Copy>,
}

/// The way through tee.
#[derive(Debug)]
struct Copy {
    read: OwnedFd,
    write: OwnedFd,
    epoll: Epoll,
    /// Where consumed bytes go; without it they are read.
    null: Option<File>,
    left: Option<Left>,
}

/// An unfinished line that stays in the pipe.
///
/// Its writer need not wake us: the kernel does not tell of more bytes in a pipe that is not empty while a
/// write(2) of more than a pipe holds goes on. So we look from time to time, and less often the longer the
/// line does not grow.
#[derive(Debug, Clone, Copy)]
struct Left {
    length: usize,
    /// It is taken as it is then.
    until: Deadline,
    /// Until the next look.
    step: Duration,
}

const INPUT: u64 = 0;
const SIGNALS: u64 = 1;

impl<'a> Source<'a> {
    /// Reads from `input`; `signals` end a wait. With `replay` a pipe is read as described above.
    ///
    /// # Errors
    /// No descriptors.
    pub fn new(input: BorrowedFd<'a>, signals: BorrowedFd<'_>, replay: bool) -> io::Result<Self> {
        let copy = if replay { Copy::new(input, signals)? } else { None };
        Ok(Self { input, buffer: vec![0; CHUNK], copy })
    }

    /// Does a KILL lose nothing?
    #[must_use]
    pub fn replays(&self) -> bool {
        self.copy.is_some()
    }

    /// The bytes of the last [`Got::Bytes`].
    #[must_use]
    pub fn bytes(&self, length: usize) -> &[u8] {
        &self.buffer[..length]
    }

    /// Looks at what there is. With replay, the bytes given are whole lines, except at the end of the input
    /// and where a line is too long to wait for.
    ///
    /// # Errors
    /// Read errors.
    pub fn look(&mut self) -> io::Result<Got> {
        let Some(copy) = &mut self.copy else { return look_plain(self.input, &mut self.buffer) };
        match tee(self.input, copy.write.as_fd(), CHUNK) {
            Ok(0) => Ok(Got::End),
            Ok(n) => {
                Raw(copy.read.as_fd()).read_exact(&mut self.buffer[..n])?;
                let over = hung_up(self.input)?;
                Ok(copy.lines(&self.buffer[..n], over))
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                copy.left = None;
                Ok(Got::Nothing)
            }
            Err(e) => Err(e),
        }
    }

    /// The bytes are safe in the log: they may go. Without replay they have gone already.
    ///
    /// # Errors
    /// Read errors.
    pub fn consume(&mut self, length: usize) -> io::Result<()> {
        let Some(copy) = &mut self.copy else { return Ok(()) };
        let mut rest = length;
        while let Some(null) = &copy.null
            && rest > 0
        {
            match splice(self.input, null.as_fd(), rest) {
                Ok(moved) if moved > 0 => rest -= moved,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // No such call, or another kind of file: read them.
                Ok(_) | Err(_) => copy.null = None,
            }
        }
        Raw(self.input).read_exact(&mut self.buffer[..rest])
    }

    /// Waits for input, a signal, or the deadline.
    ///
    /// # Errors
    /// epoll_wait(2), poll(2) errors.
    pub fn wait(&mut self, signals: BorrowedFd<'_>, deadline: Option<Deadline>) -> io::Result<()> {
        let Some(copy) = &mut self.copy else {
            ready(&[(self.input, Interest::Read), (signals, Interest::Read)], deadline)?;
            return Ok(());
        };
        let mut left = None;
        if let Some(line) = &mut copy.left {
            if line.step < LONG_WAIT {
                std::thread::sleep(line.step);
                line.step *= 2;
                return Ok(());
            }
            left = Some(line.until.min(Deadline::after(line.step)));
            line.step *= 2;
        }
        let until = [left, deadline].into_iter().flatten().min();
        let timeout = until.map_or(EpollTimeout::NONE, |d| {
            EpollTimeout::try_from(d.left().as_nanos().div_ceil(1_000_000)).unwrap_or(EpollTimeout::MAX)
        });
        match copy.epoll.wait(&mut [EpollEvent::empty(); 2], timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// The next byte, to finish a line that has begun; `Ok(None)` at the end or when the time is up.
    ///
    /// # Errors
    /// Read errors.
    pub fn next_byte(&self, deadline: Deadline) -> io::Result<Option<u8>> {
        let mut byte = [0];
        if unix::wait::one(self.input, Interest::Read, deadline)? && Raw(self.input).read(&mut byte)? == 1 {
            return Ok(Some(byte[0]));
        }
        Ok(None)
    }
}

impl Copy {
    /// `None` when the input is no pipe.
    fn new(input: BorrowedFd<'_>, signals: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let mode = SFlag::from_bits_truncate(fstat(input)?.st_mode);
        if mode & SFlag::S_IFMT != SFlag::S_IFIFO {
            return Ok(None);
        }
        let (read, write) = pipe()?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // Edge-triggered: an unfinished line that stays in the pipe must not keep us awake.
        epoll.add(input, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, INPUT))?;
        epoll.add(signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))?;
        let null = OpenOptions::new().write(true).open("/dev/null").ok();
        Ok(Some(Self { read, write, epoll, null, left: None }))
    }

    fn lines(&mut self, bytes: &[u8], over: bool) -> Got {
        if let Some(end) = memchr::memrchr(b'\n', bytes) {
            self.left = None;
            return Got::Bytes(end + 1);
        }
        let line = match self.left {
            Some(line) if line.length == bytes.len() => line,
            _ => Left { length: bytes.len(), until: Deadline::after(PATIENCE), step: FIRST_LOOK },
        };
        if over || bytes.len() >= LONG_LINE || line.until.passed() {
            self.left = None;
            return Got::Bytes(bytes.len());
        }
        self.left = Some(line);
        Got::Nothing
    }
}

fn look_plain(input: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Got> {
    let ready = ready(&[(input, Interest::Read)], Some(Deadline::after(Duration::ZERO)))?[0];
    if !ready.read {
        return Ok(Got::Nothing);
    }
    match Raw(input).read(buffer) {
        Ok(0) => Ok(Got::End),
        Ok(n) => Ok(Got::Bytes(n)),
        Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Ok(Got::Nothing)
        }
        Err(e) => Err(e),
    }
}

/// Has the last writer closed the pipe?
fn hung_up(input: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(ready(&[(input, Interest::Nothing)], Some(Deadline::after(Duration::ZERO)))?[0].closed)
}
