//! One client's request, up to a complete envelope.

use std::io::{self, Read};
use std::sync::Arc;

use mta_queue::exit::Code;
use mta_queue::inject::{Envelope, Failure, Message};
use mta_queue::injector::features::Features;
use mta_queue::injector::origin;
use mta_queue::injector::place::{Caller, KnownUsers};
use mta_queue::injector::variables::Variables;
use mta_queue::layout::Queue;
use mta_queue::qmqp::{Decoder, Event, QmqpError};
use unix::Uid;
use unix::durable::Disk;

/// Bytes that are read at a time.
const PIECE: usize = 64 * 1024;

/// What all requests share.
#[derive(Debug)]
pub struct Context {
    /// The variables of the service.
    pub variables: Variables,
    /// Users of the mail system.
    pub known: Arc<KnownUsers>,
}

/// Where one message goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'q> {
    /// The queue.
    pub queue: &'q Queue,
    /// Its disk.
    pub disk: Disk<'q>,
}

/// Why there is no complete request.
#[derive(Debug)]
pub enum Trouble {
    /// The client went away or fell silent in the middle; nobody waits for an answer.
    Gone(io::Error),
    /// The answer.
    Refused(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<QmqpError> for Trouble {
    fn from(error: QmqpError) -> Self {
        let code = match error {
            QmqpError::AddressTooLong => Code::ADDRESS_TOO_LONG,
            QmqpError::Format | QmqpError::TooMuch => Code::ENVELOPE,
        };
        Self::Refused(Failure::new(code, error.to_string()))
    }
}

/// Reads a request of user `uid` from `source` and writes its files. `number` stands for the process id that
/// the files of qmail-queue would have: it must not be used again within the same second.
///
/// # Errors
/// See [`Trouble`]; the files are removed again.
pub fn receive<'q>(
    source: &mut impl Read,
    context: &Context,
    target: Target<'q>,
    uid: Uid,
    number: u32,
) -> Result<Envelope<'q>, Trouble> {
    let caller = Caller::of_peer(uid, Arc::clone(&context.known));
    let mut incoming = Incoming {
        target,
        number,
        caller,
        variables: context.variables.with_message(&[]),
        message: None,
        addresses: Vec::new(),
    };
    let (mut decoder, mut piece) = (Decoder::default(), vec![0; PIECE]);
    while !decoder.is_complete() {
        match source.read(&mut piece) {
            Ok(0) => return Err(Trouble::Gone(io::ErrorKind::UnexpectedEof.into())),
            Ok(n) => decoder.take(piece.get(..n).unwrap_or_default(), |event| incoming.event(event))?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Trouble::Gone(e)),
        }
    }
    Ok(incoming.complete()?)
}

struct Incoming<'q> {
    target: Target<'q>,
    number: u32,
    caller: Caller,
    variables: Variables,
    message: Option<Message<'q>>,
    /// Sender and recipients as qmail-queue reads them.
    addresses: Vec<u8>,
}

impl<'q> Incoming<'q> {
    fn event(&mut self, event: Event<'_>) -> Result<(), Trouble> {
        match event {
            Event::Variables(sent) => self.variables = self.variables.with_message(&sent),
            Event::Message => {
                let now = unix::clock::unix_seconds();
                let head = origin::head(&self.variables, &self.caller, self.number, now)?;
                let mut message = Message::create(self.target.queue, self.target.disk, self.number, now)?;
                message.write(&head)?;
                self.message = Some(message);
            }
            Event::Bytes(bytes) => {
                if let Some(message) = &mut self.message {
                    message.write(bytes)?;
                }
            }
            Event::Sender(address) => self.address(b'F', address)?,
            Event::Recipient(address) => self.address(b'T', address)?,
            Event::End => self.addresses.push(0),
        }
        Ok(())
    }

    fn address(&mut self, letter: u8, address: &[u8]) -> Result<(), QmqpError> {
        if address.contains(&0) {
            return Err(QmqpError::Format);
        }
        self.addresses.push(letter);
        self.addresses.extend_from_slice(address);
        self.addresses.push(0);
        Ok(())
    }

    fn complete(self) -> Result<Envelope<'q>, Failure> {
        let message = self.message.ok_or_else(|| Failure::new(Code::ENVELOPE, "no message"))?;
        let features = Features::load(&self.variables, &self.caller)?;
        let mut envelope = message.envelope(self.caller.real_uid(), self.number)?;
        features.copy(&mut envelope, &mut &self.addresses[..])?;
        envelope.flush()?;
        Ok(envelope)
    }
}
