//! How much TLS a host gets.
//!
//! Opportunistic TLS hides a message from those who only listen; whoever can answer in the host's
//! place can also take the offer of STARTTLS away, so certificates are not looked at there. A host
//! with a file `tlshosts/NAME.pem` must prove by those authorities that it is NAME.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use tls::client::Options;

/// TLS for one host.
#[derive(Debug, Clone)]
pub(crate) enum Policy {
    /// None.
    Never,
    /// When offered, without looking at the certificate.
    Opportunistic(Arc<ClientConfig>),
    /// Required, with a certificate for this name by one of the host's authorities.
    Verified(Arc<ClientConfig>),
}

/// Finds the policy for a host. `certificates` is CERTDIR, `without` the list `notlshosts`.
pub(crate) fn policy(certificates: &Path, without: &[Vec<u8>], host: &str) -> io::Result<Policy> {
    let plain_name = !host.is_empty() && !host.contains('/') && !host.starts_with('.');
    if without.iter().any(|h| h.eq_ignore_ascii_case(host.as_bytes()))
        || (plain_name && exists(&certificates.join("notlshosts").join(host))?)
    {
        return Ok(Policy::Never);
    }
    let authorities = certificates.join("tlshosts").join(format!("{host}.pem"));
    if plain_name && exists(&authorities)? {
        return Ok(Policy::Verified(verified(&authorities)?));
    }
    if exists(&certificates.join("tlshosts/exhaustivelist"))? {
        return Ok(Policy::Never);
    }
    Ok(Policy::Opportunistic(unverified()?))
}

/// A directory that cannot be searched may hold the file: that is no answer.
fn exists(file: &Path) -> io::Result<bool> {
    file.try_exists().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}

fn unverified() -> io::Result<Arc<ClientConfig>> {
    Options::default().load()
}

fn verified(authorities: &Path) -> io::Result<Arc<ClientConfig>> {
    Options { authorities: Some(authorities.to_owned()), ..Options::default() }.load()
}
