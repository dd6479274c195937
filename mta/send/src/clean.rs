//! qmail-clean: removes files of messages on command, and what dead injectors left behind.
//!
//! ```text
//! fd 0: foop/ID NUL           remove intd (if any), then mess
//!       todo/[N/]ID NUL       remove intd, then todo
//! fd 1: one byte for each:    + done, ! could not, x not understood
//! ```
//!
//! A missing file counts as removed. One command, one byte, whatever it looks like (FIX-44).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use mta_queue::layout::{MessageId, Part, Queue};
use program::Exit;
use program::{ExitCodeDoc, Invocation, Loader, Operands, Place as Where, Program, Source, Spec, Variable};
use unix::fd::Raw;

use crate::place::{BIGTODO, CONFSPLIT, Place, QUEUEDIR};

/// Shortest and longest command in bytes, with its NUL.
const LENGTHS: std::ops::RangeInclusive<usize> = 7..=100;
/// Commands between two looks at the embryonic files.
const COMMANDS_BETWEEN_SWEEPS: u32 = 31;

static SPEC: Spec = Spec {
    name: "qmail-clean",
    summary: "remove files of finished messages",
    section: 8,
    place: Where::Sbin,
    operands: Operands { synopsis: "[owner [queue]]", min: 0, max: Some(2) },
    variables: &[
        QUEUEDIR,
        CONFSPLIT,
        BIGTODO,
        Variable {
            name: "OSSIFIED",
            help: "age in seconds at which files in pid are garbage (129600); longer than DEATH of qmail-queue",
        },
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "end of commands" },
        ExitCodeDoc { code: 100, meaning: "cannot write an answer" },
        ExitCodeDoc { code: 111, meaning: "cannot enter the queue" },
    ],
    description: "Reads commands from descriptor 0 and answers each with one byte on descriptor 1. \
        It is started by qmail-start, once for qmail-send and once for todo-proc; the operands only \
        show in process listings.\n\n\
        At start and after every 31 commands it removes files from pid that are older than OSSIFIED \
        seconds: what qmail-queue left when it was killed.",
    ..Spec::EMPTY
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    if let Err(exit) = invocation.parse() {
        return exit;
    }
    let mut loader = Loader::new(&invocation.environment);
    let place = Place::load(&mut loader);
    let from = Source { variable: Some("OSSIFIED"), ..Source::default() };
    let ossified = Duration::from_secs(loader.number("ossified", from, OSSIFIED, 1..=u64::from(u32::MAX)));
    let (place, ossified) = match invocation.finish(loader, (place, ossified), Exit::TEMPORARY) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    let queue = match place.enter() {
        Ok(queue) => queue,
        Err(e) => {
            invocation.complain("fatal", format_args!("{}: {e}", place.directory().display()));
            return Exit::TEMPORARY;
        }
    };
    serve(&queue, ossified)
}

/// Age in seconds at which what nobody commits is garbage, unless OSSIFIED says otherwise.
pub const OSSIFIED: u64 = 129_600;

fn serve(queue: &Queue, ossified: Duration) -> Exit {
    let (input, output) = (io::stdin(), io::stdout());
    let (mut input, mut output) = (Raw(input.as_fd()), Raw(output.as_fd()));
    let (mut commands, mut piece) = (Commands::default(), [0u8; 1024]);
    let mut until_sweep = 0;
    loop {
        if until_sweep == 0 {
            sweep(queue, ossified, unix::clock::now());
            until_sweep = COMMANDS_BETWEEN_SWEEPS;
        }
        let n = match input.read(&mut piece) {
            Ok(0) => return Exit::OK,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Exit::OK,
        };
        for command in commands.take(&piece[..n]) {
            let answer = command.map_or(b'x', |c| obey(queue, &c));
            if output.write_all(&[answer]).is_err() {
                return Exit::PERMANENT;
            }
            until_sweep = u32::saturating_sub(until_sweep, 1);
        }
    }
}

/// What to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The message itself.
    Message(MessageId),
    /// Its committed envelope, in this subdirectory.
    Envelope(Option<u64>, MessageId),
}

impl Command {
    /// Reads one command, given without its NUL; `None` when it makes no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if !LENGTHS.contains(&(bytes.len() + 1)) {
            return None;
        }
        if let Some(id) = bytes.strip_prefix(b"foop/") {
            return MessageId::parse(id).map(Self::Message);
        }
        let rest = bytes.strip_prefix(b"todo/")?;
        match rest.iter().position(|&b| b == b'/') {
            None => Some(Self::Envelope(None, MessageId::parse(rest)?)),
            Some(slash) => {
                let subdirectory = MessageId::parse(&rest[..slash])?;
                Some(Self::Envelope(Some(subdirectory.0), MessageId::parse(&rest[slash + 1..])?))
            }
        }
    }

    /// The command's bytes with its NUL.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Message(id) => format!("foop/{id}\0"),
            Self::Envelope(None, id) => format!("todo/{id}\0"),
            Self::Envelope(Some(n), id) => format!("todo/{n}/{id}\0"),
        }
        .into_bytes()
    }

    fn files(self, queue: &Queue) -> [PathBuf; 2] {
        match self {
            Self::Message(id) => [queue.path(Part::Intd, id), queue.path(Part::Mess, id)],
            Self::Envelope(subdirectory, id) => ["intd", "todo"].map(|part| {
                let name =
                    subdirectory.map_or_else(|| format!("{part}/{id}"), |n| format!("{part}/{n}/{id}"));
                queue.root().join(name)
            }),
        }
    }
}

/// Cuts the stream of commands at its NULs.
#[derive(Debug, Default)]
pub struct Commands {
    current: Vec<u8>,
}

impl Commands {
    /// Takes bytes as they arrive and returns what each complete command was.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Option<Command>> {
        let mut done = Vec::new();
        for &byte in bytes {
            if byte == 0 {
                done.push(Command::decode(&self.current));
                self.current.clear();
            } else if self.current.len() <= *LENGTHS.end() {
                self.current.push(byte);
            }
        }
        done
    }
}

/// intd goes before the other: a mess or todo file without intd is a state of the table.
fn obey(queue: &Queue, command: &Command) -> u8 {
    for path in command.files(queue) {
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return b'!',
        }
    }
    b'+'
}

/// Removes files from `pid` that nobody has touched for `ossified`.
fn sweep(queue: &Queue, ossified: Duration, now: SystemTime) {
    use std::os::unix::ffi::OsStrExt;
    // A directory that cannot be read is looked at again next time.
    let Ok(entries) = std::fs::read_dir(queue.root().join("pid")) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let touched = [meta.accessed(), meta.modified()].into_iter().flatten().max();
        let old = touched.and_then(|t| now.duration_since(t).ok()).is_some_and(|age| age > ossified);
        if old && !entry.file_name().as_bytes().starts_with(b".") && meta.is_file() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mta_queue::layout::Shape;
    use proptest::prelude::*;

    fn decode(text: &str) -> Option<Command> {
        Command::decode(text.as_bytes())
    }

    #[test]
    fn commands_are_understood_or_refused() {
        assert_eq!(decode("foop/123"), Some(Command::Message(MessageId(123))));
        assert_eq!(decode("todo/7/123"), Some(Command::Envelope(Some(7), MessageId(123))));
        assert_eq!(decode("todo/123"), Some(Command::Envelope(None, MessageId(123))));
        let long = format!("foop/{}", "1".repeat(95));
        for wrong in ["foop/", "foop/1a", "mess/12", "todo/1/2/3", "todo/../2", "todo//22", &long, "foop1"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn fix_44_every_command_has_one_answer() {
        let mut commands = Commands::default();
        let bytes = [b"\0\0foop/x\0".to_vec(), vec![b'y'; 5000], b"\0foop/12\0".to_vec()].concat();
        let all: Vec<_> = bytes.chunks(3).flat_map(|c| commands.take(c)).collect();
        assert_eq!(all, [None, None, None, None, Some(Command::Message(MessageId(12)))]);
    }

    #[test]
    fn files_go_and_missing_ones_do_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 2, bigtodo: false });
        let id = MessageId(5);
        for part in [Part::Mess, Part::Intd, Part::Todo] {
            let path = queue.path(part, id);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        assert_eq!(obey(&queue, &Command::Envelope(None, id)), b'+');
        assert!(queue.path(Part::Mess, id).exists() && !queue.path(Part::Todo, id).exists());
        assert_eq!(obey(&queue, &Command::Message(id)), b'+');
        assert!(!queue.path(Part::Mess, id).exists());
        assert_eq!(obey(&queue, &Command::Message(id)), b'+');
        std::fs::create_dir(queue.path(Part::Mess, id)).unwrap();
        assert_eq!(obey(&queue, &Command::Message(id)), b'!');
    }

    #[test]
    fn only_old_embryos_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let queue = Queue::new(dir.path(), Shape { split: 2, bigtodo: false });
        std::fs::create_dir(dir.path().join("pid")).unwrap();
        for name in ["1.2.3", ".keep"] {
            std::fs::write(dir.path().join("pid").join(name), b"").unwrap();
        }
        let left = || std::fs::read_dir(dir.path().join("pid")).unwrap().count();
        let (now, hour) = (unix::clock::now(), Duration::from_secs(3600));
        sweep(&queue, hour, now + Duration::from_secs(3000));
        assert_eq!(left(), 2);
        sweep(&queue, hour, now + Duration::from_secs(4000));
        assert_eq!(left(), 1);
    }

    proptest! {
        #[test]
        fn garbage_never_names_a_file_outside(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            if let Some(command) = Command::decode(&bytes) {
                let back = command.encode();
                prop_assert!(back.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'/' || *b == 0));
            }
        }

        #[test]
        fn commands_round_trip(n in proptest::option::of(0u64..151), id in 10u64..u64::MAX) {
            for command in [Command::Message(MessageId(id)), Command::Envelope(n, MessageId(id))] {
                let bytes = command.encode();
                prop_assert_eq!(Commands::default().take(&bytes), vec![Some(command)]);
            }
        }
    }
}
