//! Certificate and key, and what a handshake came to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use smtp::server::TlsFacts;

/// Reads a PEM file that holds the private key and the certificate chain.
///
/// # Errors
/// The file cannot be read, or does not hold both, or they do not belong together.
pub(crate) fn server(file: &Path) -> io::Result<Arc<ServerConfig>> {
    let named = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", file.display()));
    let pem = zeroize::Zeroizing::new(std::fs::read(file).map_err(|e| named(&e))?);
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|e| named(&e))?;
    if chain.is_empty() {
        return Err(named(&"no certificate in it"));
    }
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| named(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|b| b.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| named(&e))?;
    Ok(Arc::new(config))
}

/// Version and cipher of a finished handshake.
pub(crate) fn facts(tls: &ServerConnection) -> TlsFacts {
    let version = tls.protocol_version().map_or_else(String::new, |v| format!("{v:?}").replace('_', "."));
    let cipher = tls.negotiated_cipher_suite().map_or_else(String::new, |s| format!("{:?}", s.suite()));
    TlsFacts { version, cipher }
}
