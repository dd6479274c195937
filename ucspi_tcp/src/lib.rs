//! TCP (and Unix socket) servers that start a program for each connection.
//!
//! ```text
//! listener ──accept──► rules (cdb by address) ──► table (limits) ──► child: the program, the connection on
//!    ▲                                               │               descriptors 0 and 1, TCP* variables
//!    └── poll, signals (HUP, USR1, TERM, CHLD) ◄─────┴── one line of log for each step
//! ```
//!
//! - [`tcpserver`]: the server; its bookkeeping, log lines and variables are pure;
//! - [`tcp_env`]: what has to be asked about a client before its program starts;
//! - [`rules`]: what a rules database says about an address, and [`tcprules`]: making and asking one;
//! - [`tcpserver_tls`], [`sql_rules`]: TLS and rules in a table, executables of their own; [`tcpstatus`]: asking a server;
//! - [`proxy`], [`networks`]: PROXY headers and whom to believe them;
//! - [`tcpclient`]: the other side, and [`questions`]: small programs that connect, ask and print the answer;
//! - [`udp`]: lines as datagrams;
//! - [`rblsmtpd`]: in front of an SMTP server, an executable of its own because of the DNS;
//! - [`beside`], [`filters`], [`argv0`]: around a program or its data; [`crlf`] is their pure part, [`relay`] their driver.

#![forbid(unsafe_code)]

pub mod argv0;
pub mod beside;
pub mod crlf;
pub mod filters;
pub mod networks;
pub mod proxy;
pub mod questions;
pub mod rblsmtpd;
pub mod relay;
pub mod rules;
pub mod sql_rules;
pub mod tcp_env;
pub mod tcpclient;
pub mod tcpclient_tls;
pub mod tcprules;
pub mod tcpserver;
pub mod tcpserver_tls;
pub mod tcpstatus;
pub mod udp;
