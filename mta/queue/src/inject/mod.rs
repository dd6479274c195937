//! Putting one message into one queue so that a crash at any point is harmless.
//!
//! ```text
//! Message::create ─ write ... ─► envelope() ─► Envelope ─ sender, recipient ... ─► prepare() ─► Prepared ─► commit()
//! ```
//!
//! | step | action | if the machine stops right after |
//! |---|---|---|
//! | 1 | create `pid/P.T.S` exclusively; its inode is the message's number | stray file, collected later |
//! | 2 | link it to `mess/N/id` | S2, collected later |
//! | 3 | unlink the pid file | S2 |
//! | 4 | write the Received field and the message | S2 |
//! | 5 | create `intd/id`, write the records | S3 |
//! | 6 | force out mess, intd, then both directories | S3, complete |
//! | 7 | link intd to `todo/id` | S4: queued, exactly once |
//! | 8 | force out the todo directory | S4, safe |
//!
//! Nothing before step 7 can cause a delivery, nothing after it can undo one. An error before it
//! removes what was made (dropping the value does); when step 8 fails the message *is* queued
//! although the client hears "temporary", which is the accepted window for a duplicate.

pub mod batch;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use unix::durable::Disk;

use crate::envelope::{Decoder, EnvelopeError, Item, Record};
use crate::exit::Code;
use crate::layout::{MessageId, Part, Queue};

/// Bytes that are gathered before they are written.
const BUFFER: usize = 64 * 1024;

/// Why a message did not get into the queue.
#[derive(Debug, thiserror::Error)]
#[error("{what}{}", source.as_ref().map(|e| format!(": {e}")).unwrap_or_default())]
pub struct Failure {
    /// The exit code that says so.
    pub code: Code,
    /// What was being done, and to which file.
    pub what: String,
    /// What the kernel said.
    pub source: Option<io::Error>,
}

impl Failure {
    /// A failure that is not the kernel's.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), source: None }
    }

    /// What the kernel said about `what`.
    pub fn of(code: Code, what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self { code, what, source: Some(source) }
    }

    fn at(code: Code, what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        Self::of(code, format!("{what} {}", path.display()))
    }
}

impl From<EnvelopeError> for Failure {
    fn from(error: EnvelopeError) -> Self {
        let code = match error {
            EnvelopeError::Format => Code::ENVELOPE,
            EnvelopeError::AddressTooLong => Code::ADDRESS_TOO_LONG,
        };
        Self::new(code, format!("envelope: {error}"))
    }
}

/// A file with its path and bytes that are still to be written.
#[derive(Debug)]
struct Output<'d> {
    disk: Disk<'d>,
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.flush()?;
        }
        if bytes.len() > BUFFER {
            return self.write_through(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.disk.write(&self.path, &mut self.file, bytes);
        written.map_err(Failure::at(Code::WRITE, "cannot write", &self.path))
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.buffer);
        self.write_through(&bytes)?;
        self.buffer = bytes;
        self.buffer.clear();
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        let done = self.disk.sync_file(&self.path, &self.file);
        done.map_err(Failure::at(Code::FSYNC, "cannot force out", &self.path))
    }

    /// Frees the blocks at once, for a full disk, then removes the name.
    fn discard(&self) {
        if self.disk.unlink(&self.path).is_ok() {
            // The name is gone; what stays without its blocks is freed with the descriptor.
            let _ = self.file.set_len(0);
        }
    }
}

/// A message whose bytes are arriving (S2). Dropping it removes it.
#[derive(Debug)]
pub struct Message<'q> {
    queue: &'q Queue,
    id: MessageId,
    mess: Output<'q>,
    keep: bool,
}

impl<'q> Message<'q> {
    /// Steps 1 to 3. `pid` and `now` (seconds) make the name of the embryonic file.
    ///
    /// # Errors
    /// The queue directory does not let us, or is full.
    pub fn create(queue: &'q Queue, disk: Disk<'q>, pid: u32, now: u64) -> Result<Self, Failure> {
        let (embryo, file) = create_embryo(queue, disk, pid, now)?;
        let named = (|| {
            let inode =
                file.metadata().map_err(Failure::at(Code::PID_FILE, "cannot look at", &embryo))?.ino();
            let id = MessageId(inode);
            let path = queue.path(Part::Mess, id);
            disk.link(&embryo, &path).map_err(Failure::at(Code::LINK_MESS, "cannot link", &path))?;
            Ok((id, path))
        })();
        let (id, path) = match named {
            Ok(named) => named,
            Err(failure) => {
                let _ = disk.unlink(&embryo);
                return Err(failure);
            }
        };
        let mess = Output { disk, path, file, buffer: Vec::with_capacity(BUFFER) };
        let message = Self { queue, id, mess, keep: false };
        match disk.unlink(&embryo) {
            Ok(_) => Ok(message),
            Err(e) => Err(Failure::at(Code::UNLINK_PID, "cannot remove", &embryo)(e)),
        }
    }

    /// The message's number.
    #[must_use]
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Adds bytes (step 4).
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.mess.put(bytes)
    }

    /// Adds everything that `source` has.
    ///
    /// # Errors
    /// As [`Message::write`], or reading failed.
    pub fn copy(&mut self, source: &mut impl Read) -> Result<(), Failure> {
        let mut piece = vec![0u8; BUFFER];
        loop {
            match source.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(n) => self.write(&piece[..n])?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::of(Code::READ, "cannot read the message")(e)),
            }
        }
    }

    /// The message is complete: begins the envelope (step 5).
    ///
    /// # Errors
    /// As [`Message::write`].
    pub fn envelope(mut self, uid: u32, pid: u32) -> Result<Envelope<'q>, Failure> {
        self.mess.flush()?;
        let path = self.queue.path(Part::Intd, self.id);
        let disk = self.mess.disk;
        let file =
            disk.create_new(&path, 0o644).map_err(Failure::at(Code::CREATE_INTD, "cannot create", &path))?;
        let intd = Output { disk, path, file, buffer: Vec::new() };
        let mut envelope = Envelope { intd, message: self, keep: false };
        envelope.record(Record::Uid(uid))?;
        envelope.record(Record::Pid(pid))?;
        Ok(envelope)
    }
}

impl Drop for Message<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.mess.discard();
        }
    }
}

fn create_embryo(queue: &Queue, disk: Disk<'_>, pid: u32, now: u64) -> Result<(PathBuf, File), Failure> {
    let mut last = None;
    for sequence in 1..=9 {
        let path = queue.root().join(format!("pid/{pid}.{now}.{sequence}"));
        match disk.create_new(&path, 0o644) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => last = Some((path, e)),
            Err(e) => return Err(Failure::at(Code::PID_FILE, "cannot create", &path)(e)),
        }
    }
    let (path, e) = last.unwrap_or_else(|| (queue.root().join("pid"), io::ErrorKind::AlreadyExists.into()));
    Err(Failure::at(Code::PID_FILE, "cannot create", &path)(e))
}

/// A complete message whose envelope is arriving (S3). Dropping it removes both.
#[derive(Debug)]
pub struct Envelope<'q> {
    // Declared first and so dropped first: intd goes before mess.
    intd: Output<'q>,
    message: Message<'q>,
    keep: bool,
}

impl<'q> Envelope<'q> {
    /// Adds a record.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn record(&mut self, record: Record<'_>) -> Result<(), Failure> {
        let mut bytes = Vec::with_capacity(64);
        record.encode(&mut bytes);
        self.intd.put(&bytes)
    }

    /// Adds the sender and recipients of a client's envelope, up to its end.
    ///
    /// # Errors
    /// As [`Envelope::read`].
    pub fn copy(&mut self, source: &mut impl Read) -> Result<(), Failure> {
        self.read(source, |envelope, item| match item {
            Item::Sender(s) => envelope.record(Record::Sender(s)),
            Item::Recipient(r) => envelope.record(Record::Recipient(r)),
            Item::End => Ok(()),
        })
    }

    /// Hands each item of a client's envelope to `each`, up to its end, which it sees too.
    ///
    /// # Errors
    /// The envelope is none, ends early, or `each` failed.
    pub fn read(
        &mut self,
        source: &mut impl Read,
        mut each: impl FnMut(&mut Self, Item<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (mut decoder, mut piece) = (Decoder::default(), [0u8; 4096]);
        while !decoder.is_complete() {
            match source.read(&mut piece) {
                Ok(0) => return Err(Failure::new(Code::READ, "envelope ends too early")),
                Ok(n) => decoder.take(&piece[..n], |item| each(self, item))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::of(Code::READ, "cannot read the envelope")(e)),
            }
        }
        Ok(())
    }

    /// Hands the last bytes to the kernel; the envelope is complete.
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.intd.flush()
    }

    /// Forces everything out (step 6).
    ///
    /// # Errors
    /// The disk is full or broken.
    pub fn prepare(mut self) -> Result<Prepared<'q>, Failure> {
        self.intd.flush()?;
        self.message.mess.sync()?;
        self.intd.sync()?;
        for path in [&self.message.mess.path, &self.intd.path] {
            let done = self.intd.disk.sync_parent(path);
            done.map_err(unsafe_directory(path))?;
        }
        Ok(Prepared(self))
    }
}

impl Drop for Envelope<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.intd.discard();
        }
    }
}

/// A message that is on the disk whole but not queued yet (S3). Dropping it removes it.
#[derive(Debug)]
pub struct Prepared<'q>(Envelope<'q>);

impl Prepared<'_> {
    /// Queues it (steps 7 and 8).
    ///
    /// # Errors
    /// [`Code::LINK_TODO`]: it is not queued and removed. [`Code::DIRECTORY_SYNC`]: it is queued,
    /// but may not survive a power cut.
    pub fn commit(self) -> Result<MessageId, Failure> {
        let disk = self.0.intd.disk;
        let (id, todo) = self.link()?;
        disk.sync_parent(&todo).map_err(unsafe_directory(&todo))?;
        Ok(id)
    }

    /// Step 7.
    fn link(mut self) -> Result<(MessageId, PathBuf), Failure> {
        let envelope = &mut self.0;
        let id = envelope.message.id;
        let todo = envelope.message.queue.path(Part::Todo, id);
        let disk = envelope.intd.disk;
        disk.link(&envelope.intd.path, &todo).map_err(Failure::at(Code::LINK_TODO, "cannot link", &todo))?;
        envelope.keep = true;
        envelope.message.keep = true;
        Ok((id, todo))
    }
}

fn unsafe_directory(entry: &Path) -> impl FnOnce(io::Error) -> Failure {
    Failure::at(Code::DIRECTORY_SYNC, "cannot force out the directory of", entry)
}

#[cfg(test)]
mod tests;
