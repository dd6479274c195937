//! qmail-inject: completes a message and queues it.

mod job;
mod rewrite;
mod settings;

use std::io::{self, BufRead, BufReader, Read, Write};

use message::header;
use mta_queue::client::{Outcome, QueueProgram};
use program::{Exit, Invocation, Program};

pub use job::{Hosts, Identity, Job, RecipientsFrom};
pub use rewrite::{Error, Rewritten, rewrite};
pub use settings::{SPEC, Settings};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

/// Longest header that is taken, in bytes.
const HEADER_MAX: usize = 16 << 20;

/// A failure and the exit code it means.
type Failure = (Exit, String);

pub(crate) fn main(invocation: &Invocation) -> Exit {
    let settings = match settings::load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match run(&settings, &mut io::stdin().lock()) {
        Ok(()) => Exit::OK,
        Err((exit, text)) => {
            invocation.complain("fatal", text);
            exit
        }
    }
}

/// Reads the message, rewrites its header, queues or prints it.
///
/// # Errors
/// The exit code and what to say.
pub fn run(settings: &Settings, input: &mut dyn Read) -> Result<(), Failure> {
    let unreadable = |e: io::Error| (Exit::TEMPORARY, format!("cannot read the message: {e}"));
    let mut input = BufReader::with_capacity(64 * 1024, input);
    let header = header::read(&mut input, HEADER_MAX)
        .map_err(unreadable)?
        .ok_or_else(|| (Exit::PERMANENT, format!("the header has more than {HEADER_MAX} bytes")))?;
    let job = &settings.job;
    let rewritten = rewrite(&header.bytes, job).map_err(|e| (Exit::PERMANENT, e.to_string()))?;
    if settings.print {
        return print(&rewritten, &header.next, &mut input);
    }
    if rewritten.recipients.is_empty() {
        return Err((Exit::PERMANENT, "no recipients".to_owned()));
    }
    let count = u64::try_from(rewritten.recipients.len()).unwrap_or(u64::MAX);
    if settings.max_recipients.is_some_and(|max| count > max) {
        return Err((
            Exit::PERMANENT,
            "more recipients than the control file maxrecipients allows".to_owned(),
        ));
    }
    let queue = QueueProgram::new(&settings.sbin, &settings.environment);
    let mut transfer = queue.open().map_err(refused)?;
    let mut count = Limit { left: settings.max_bytes };
    let body = [separator(&header.next), header.next.clone()].concat();
    for piece in [&rewritten.header, &body] {
        count.take(piece.len())?;
        transfer.write(piece);
    }
    let mut last = body.last().copied();
    loop {
        let piece = input.fill_buf().map_err(unreadable)?;
        if piece.is_empty() {
            break;
        }
        count.take(piece.len())?;
        transfer.write(piece);
        last = piece.last().copied();
        let taken = piece.len();
        input.consume(taken);
        if transfer.failed() {
            break;
        }
    }
    transfer.write(line_end(last));
    match transfer.finish(&rewritten.sender, rewritten.recipients.iter().map(Vec::as_slice)) {
        Outcome::Queued { .. } => Ok(()),
        other => Err(refused(other)),
    }
}

fn print(rewritten: &Rewritten, next: &[u8], rest: &mut dyn BufRead) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut last = next.last().copied();
    let written = [&rewritten.header, &separator(next)[..], next]
        .iter()
        .try_for_each(|piece| out.write_all(piece))
        .and_then(|()| {
            loop {
                let piece = rest.fill_buf()?;
                let Some(&end) = piece.last() else {
                    break out.write_all(line_end(last));
                };
                last = Some(end);
                out.write_all(piece)?;
                let taken = piece.len();
                rest.consume(taken);
            }
        })
        .and_then(|()| out.flush());
    written.map_err(|e| (Exit::TEMPORARY, format!("cannot print the message: {e}")))
}

/// A message whose header runs into its text, or ends with it, gets the empty line it lacks.
fn separator(next: &[u8]) -> Vec<u8> {
    if next == b"\n" || next == b"\r\n" { Vec::new() } else { b"\n".to_vec() }
}

/// What the last line of a message lacks: SMTP cannot carry half a line.
fn line_end(last: Option<u8>) -> &'static [u8] {
    if last.is_none_or(|byte| byte == b'\n') { b"" } else { b"\n" }
}

fn refused(outcome: Outcome) -> Failure {
    let shown = |text: Vec<u8>| text.escape_ascii().to_string();
    match outcome {
        Outcome::Queued { .. } => (Exit::OK, String::new()),
        Outcome::Permanent(text) => (Exit::PERMANENT, shown(text)),
        Outcome::Temporary(text) => (Exit::TEMPORARY, shown(text)),
    }
}

/// The size that databytes allows; dropping a transfer aborts it.
struct Limit {
    left: Option<u64>,
}

impl Limit {
    fn take(&mut self, bytes: usize) -> Result<(), Failure> {
        if let Some(left) = &mut self.left {
            let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
            *left = left.checked_sub(bytes).ok_or_else(|| {
                (Exit::PERMANENT, "the message has more bytes than databytes allows".to_owned())
            })?;
        }
        Ok(())
    }
}
