//! Certificate and key, and what a handshake came to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use smtp::server::TlsFacts;

/// Reads a PEM file that holds the private key and the certificate chain.
///
/// # Errors
/// The file cannot be read, or does not hold both, or they do not belong together.
pub(crate) fn server(file: &Path) -> io::Result<Arc<ServerConfig>> {
    ::tls::server::Options::new(file).load()
}

/// Version and cipher of a finished handshake.
pub(crate) fn facts(tls: &ServerConnection) -> TlsFacts {
    let version = tls.protocol_version().map_or_else(String::new, |v| format!("{v:?}").replace('_', "."));
    let cipher = tls.negotiated_cipher_suite().map_or_else(String::new, |s| format!("{:?}", s.suite()));
    TlsFacts { version, cipher }
}
