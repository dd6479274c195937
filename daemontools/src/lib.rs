//! Supervision: programs that keep services running, talk to them, keep their logs, and start other
//! programs under another user, environment or limit.
//!
//! ```text
//! svscan ──one per service──► supervise ──► run            svc, svstat, svok
//!    │                          │  ▲                              │
//!    │ pipe, kept               │  └── supervise/control ◄────────┤
//!    └──► supervise log ──► multilog          supervise/status ◄──┘
//! ```
//!
//! - [`supervise`]: one service; [`svscan`]: a directory of them; [`svscanboot`]: how that begins;
//! - [`status`], [`state_path`], [`client`] and [`fifo`]: what both sides of a service directory share;
//! - [`svc`], [`svstat`], [`svok`], [`svps`]: the operator's side; [`minisvc`] sets things up;
//! - [`multilog`], [`tai64n`], [`logselect`], [`qlogselect`], [`qfilelog`], [`splogger`]: logs; [`pipeline`], [`teepipe`]: pipes between services;
//! - [`readproctitle`], [`svalert`], [`waitfor`], [`inotify`]: what tells a person or a script;
//! - [`chain`], [`fghack`], [`setuidgid`], [`envdir`], [`envini`], [`softlimit`], [`setlock`]: programs that become another.
//!
//! The life of a service and of a scan directory, the selection and rotation of logs are pure state
//! machines and functions; the drivers around them are a `poll` each. Nothing here runs threads.

#![forbid(unsafe_code)]

pub mod client;
pub mod envdir;
pub mod envini;
pub mod fghack;
pub mod inotify;
pub mod logselect;
pub mod minisvc;
pub mod multilog;
pub mod pipeline;
pub mod qfilelog;
pub mod qlogselect;
pub mod readproctitle;
pub mod setlock;
pub mod setuidgid;
pub mod softlimit;
pub mod splogger;
pub mod status;
pub mod supervise;
pub mod svalert;
pub mod svc;
pub mod svok;
pub mod svps;
pub mod svscan;
pub mod svscanboot;
pub mod svstat;
pub mod tai64n;
pub mod teepipe;
pub mod waitfor;

pub use service::{fifo, state_path};

pub use program::chain;
