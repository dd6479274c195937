//! `nssd`: answers who is who among the mail accounts.
//!
//! ```text
//! module, tools ══► serve ──► Daemon (frames, who may ask) ──► Answers ──► cache ──► Source (accounts)
//!                                                                 │
//!                                                              Policy: which records, in which form
//! ```
//!
//! - [`conf`]: the syntax of `nssd.conf`; [`settings`]: its keys, the options, the table;
//! - [`local`]: ids that belong to local users; [`policy`]: from an account to records that every passwd reader can digest;
//! - [`published`]: the map that the module reads in place of asking; `rows`: what is in it;
//! - [`answers`]: questions and answers, remembered for a while;
//! - [`source`]: what is needed of the account library;
//! - [`daemon`]: the service and its life.
//!
//! An account store that is away makes "cannot tell", never "no such user". Nothing here asks the
//! name service once the daemon serves: the question would come back to it.

#![forbid(unsafe_code)]

pub mod answers;
pub mod conf;
pub mod daemon;
pub mod local;
pub mod log;
pub mod policy;
pub mod published;
mod rows;
pub mod settings;
pub mod source;

/// The program.
pub const PROGRAM: program::Program = program::Program { spec: &settings::SPEC, main: daemon::main };
