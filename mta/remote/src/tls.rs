//! How much TLS a host gets.
//!
//! Opportunistic TLS hides a message from those who only listen; whoever can answer in the host's
//! place can also take the offer of STARTTLS away, so certificates are not looked at there. A host
//! with a file `tlshosts/NAME.pem` must prove by those authorities that it is NAME.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

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
    Ok(Policy::Opportunistic(unverified().map_err(io::Error::other)?))
}

/// A directory that cannot be searched may hold the file: that is no answer.
fn exists(file: &Path) -> io::Result<bool> {
    file.try_exists().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())))
}

fn unverified() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn verified(authorities: &Path) -> io::Result<Arc<ClientConfig>> {
    let named = |e: &dyn std::fmt::Display| io::Error::other(format!("{}: {e}", authorities.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authorities).map_err(|e| named(&e))? {
        roots.add(certificate.map_err(|e| named(&e))?).map_err(|e| named(&e))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| named(&e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes any certificate, but checks that the host holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
