//! What is in a queue right now, read while everything runs: a message may go while it is looked at.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mta_queue::envelope::{Record, records};
use mta_queue::layout::{Channel, MessageId, Part, Queue, Shape, exists, ids_in};
use program::{Loader, Source};
use serde::Serialize;

/// A message in a queue.
#[derive(Debug, Serialize)]
pub struct Message {
    /// Name of the queue.
    pub queue: String,
    /// Number, the inode of its file.
    pub id: u64,
    /// Number of its subdirectory.
    pub subdirectory: u64,
    /// When it was sorted, or arrived; seconds since 1970.
    pub date: u64,
    /// Bytes.
    pub size: u64,
    /// Envelope sender.
    pub sender: String,
    /// Have some recipients failed for good?
    pub bouncing: bool,
    /// Everybody it goes to.
    pub recipients: Vec<Recipient>,
}

/// A recipient of a message.
#[derive(Debug, Serialize)]
pub struct Recipient {
    /// `local`, `remote` or `todo`.
    pub channel: &'static str,
    /// Address.
    pub address: String,
    /// Is it done with?
    pub done: bool,
}

/// How much is in a queue.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Counts {
    /// Name of the queue.
    pub queue: String,
    /// Messages, sorted or not, also those that are arriving.
    pub messages: u64,
    /// Messages that todo-proc has not sorted yet.
    pub todo: u64,
    /// Messages with local recipients.
    pub local: u64,
    /// Messages with remote recipients.
    pub remote: u64,
    /// Messages with failures.
    pub bouncing: u64,
}

/// Where to look: QUEUEDIR, or the collection in QUEUE_BASE.
#[derive(Debug)]
pub enum Where {
    /// This queue.
    One(PathBuf),
    /// A queue, or a directory of queues.
    Base(PathBuf),
}

/// Which queues are to be looked at.
pub fn places(loader: &mut Loader<'_>) -> Where {
    if let Some(one) = loader.environment().get("QUEUEDIR").filter(|v| !v.is_empty()) {
        loader.show("queue", one.display(), "variable QUEUEDIR");
        return Where::One(PathBuf::from(one));
    }
    let from = Source { variable: Some("QUEUE_BASE"), control: Some("queue_base"), ..Source::default() };
    Where::Base(loader.path("queue base", from, crate::place::DEFAULT_QUEUE))
}

/// The directories of the queues there, by number.
///
/// # Errors
/// The directory of the collection cannot be read: its name and why.
pub fn queues(place: Where) -> Result<Vec<PathBuf>, String> {
    let base = match place {
        Where::One(queue) => return Ok(vec![queue]),
        Where::Base(base) if base.join("mess").is_dir() => return Ok(vec![base]),
        Where::Base(base) => base,
    };
    let entries = std::fs::read_dir(&base).map_err(|e| format!("{}: {e}", base.display()))?;
    let mut found: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.join("mess").is_dir()).collect();
    found.sort_by_key(|p| (p.as_os_str().len(), p.clone()));
    Ok(found)
}

/// A queue that is looked at.
#[derive(Debug)]
pub struct View {
    name: String,
    queue: Queue,
}

impl View {
    /// Of the queue in `directory`.
    ///
    /// # Errors
    /// There is no queue, or it is closed to us.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let name = directory.file_name().unwrap_or(directory.as_os_str()).to_string_lossy().into_owned();
        std::fs::read_dir(directory.join("mess"))?;
        Ok(Self { name, queue: Queue::new(directory, Shape::of(directory, None, None)?) })
    }

    /// How much is in it.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn counts(&self) -> io::Result<Counts> {
        let count = |part| -> io::Result<u64> {
            let mut sum = 0;
            for (_, directory) in self.queue.directories(part) {
                sum += ids_in(&directory)?.len() as u64;
            }
            Ok(sum)
        };
        Ok(Counts {
            queue: self.name.clone(),
            messages: count(Part::Mess)?,
            todo: count(Part::Todo)?,
            local: count(Part::Recipients(Channel::Local))?,
            remote: count(Part::Recipients(Channel::Remote))?,
            bouncing: count(Part::Bounce)?,
        })
    }

    /// Hands every message to `sink`, oldest number first within a subdirectory.
    ///
    /// # Errors
    /// A directory cannot be read, or `sink` failed.
    pub fn each(&self, mut sink: impl FnMut(Message) -> io::Result<()>) -> io::Result<()> {
        for (_, directory) in self.queue.directories(Part::Mess) {
            let mut ids = ids_in(&directory)?;
            ids.sort();
            for id in ids {
                if let Some(message) = gone_is_none(self.message(id))? {
                    sink(message)?;
                }
            }
        }
        Ok(())
    }

    /// `Ok(None)` for a message that is still arriving.
    fn message(&self, id: MessageId) -> io::Result<Option<Message>> {
        let mess = std::fs::metadata(self.queue.path(Part::Mess, id))?;
        let mut message = Message {
            queue: self.name.clone(),
            id: id.0,
            subdirectory: self.queue.subdirectory(id),
            date: u64::try_from(mess.mtime()).unwrap_or(0),
            size: mess.size(),
            sender: String::new(),
            bouncing: exists(&self.queue.path(Part::Bounce, id))?,
            recipients: Vec::new(),
        };
        if let Some(envelope) = self.read(Part::Todo, id)? {
            message.take(&envelope, "todo");
            return Ok(Some(message));
        }
        let Some(info) = self.read(Part::Info, id)? else {
            return Ok(None);
        };
        let birth = std::fs::metadata(self.queue.path(Part::Info, id))?.mtime();
        message.date = u64::try_from(birth).unwrap_or(0);
        message.take(&info, "");
        for channel in Channel::BOTH {
            if let Some(recipients) = self.read(Part::Recipients(channel), id)? {
                message.take(&recipients, channel.name());
            }
        }
        Ok(Some(message))
    }

    fn read(&self, part: Part, id: MessageId) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.queue.path(part, id)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn gone_is_none<T>(answer: io::Result<Option<T>>) -> io::Result<Option<T>> {
    match answer {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other,
    }
}

impl Message {
    fn take(&mut self, bytes: &[u8], channel: &'static str) {
        // A record that cannot be read is todo-proc's business; the others are shown.
        for (_, record) in records(bytes).flatten() {
            let (address, done) = match record {
                Record::Sender(s) => {
                    self.sender = text(s);
                    continue;
                }
                Record::Recipient(r) => (r, false),
                Record::Done(r) => (r, true),
                Record::Uid(_) | Record::Pid(_) | Record::ExtraHeader(_) | Record::Exported(_) => continue,
            };
            self.recipients.push(Recipient { channel, address: text(address), done });
        }
    }
}

/// Addresses as they can be shown on a terminal.
fn text(address: &[u8]) -> String {
    String::from_utf8_lossy(address).chars().map(|c| if c.is_control() { '_' } else { c }).collect()
}

/// The last part of a path as text.
#[must_use]
pub fn shown(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}
