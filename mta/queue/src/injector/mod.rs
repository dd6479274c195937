//! What every injector does around the durable steps, for one caller: the program `qmail-queue`, whose
//! caller has started it, and the queue service, whose callers are at the other end of a socket.
//!
//! - [`variables`]: the short list of variables that count;
//! - [`place`]: which queue, and who may choose it;
//! - [`origin`]: the fields before the message;
//! - [`features`]: what is added to envelopes.

pub mod features;
pub mod origin;
pub mod place;
pub mod variables;
