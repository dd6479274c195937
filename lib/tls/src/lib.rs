//! TLS for programs that serve one connection each.
//!
//! ```text
//! files ──► server::Options ──► rustls::ServerConfig ──► handshake ──► Facts (version, cipher, name, client)
//!                                                          │
//!                              TLS socket ◄──── relay ────►┴ pipes of a program that knows nothing of TLS
//! ```
//!
//! - [`server`]: certificate, key, certificates for other names, authorities for clients;
//! - [`client`]: whom a client believes, and its own certificate;
//! - [`suites`]: ciphers and versions by the names that OpenSSL and IANA give them;
//! - [`facts`]: what a finished handshake came to;
//! - [`distinguished`]: subject and issuer of a certificate as text;
//! - [`relay`]: handshake and copying, with deadlines.
//!
//! Nothing older than TLS 1.2 is spoken, and there is no renegotiation.

#![forbid(unsafe_code)]

pub mod client;
pub mod distinguished;
pub mod facts;
pub mod relay;
pub mod server;
pub mod suites;

pub use rustls;
