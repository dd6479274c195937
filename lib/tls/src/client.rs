//! What a client needs for a handshake.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DEFAULT_VERSIONS, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
};

/// Files and choices of a client.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// PEM file with the authorities that the server's certificate must come from; its names (subjectAltName)
    /// must have the name that the connection is made for. `None`: certificates are not looked at, which hides
    /// the connection only from those who cannot take the server's place.
    pub authorities: Option<PathBuf>,
    /// PEM file with revocation lists. With it, a certificate about which no list speaks is refused.
    pub revoked: Option<PathBuf>,
    /// PEM file with our own private key and certificate chain, for servers that ask for one.
    pub certificate: Option<PathBuf>,
    /// Versions; empty: all that are spoken.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Ciphers, the preferred first; empty: all that are offered.
    pub suites: Vec<SupportedCipherSuite>,
}

impl Options {
    /// Reads all files.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it must; the error names it.
    pub fn load(&self) -> io::Result<Arc<ClientConfig>> {
        let mut provider = default_provider();
        if !self.suites.is_empty() {
            provider.cipher_suites.clone_from(&self.suites);
        }
        let provider = Arc::new(provider);
        let versions = if self.versions.is_empty() { DEFAULT_VERSIONS } else { &self.versions };
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| io::Error::other(format!("versions and ciphers do not fit together: {e}")))?;
        let builder = match &self.authorities {
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
            Some(file) => builder.with_webpki_verifier(self.verifier(file, provider)?),
        };
        let config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let (chain, key) = certified(file)?;
                builder.with_client_auth_cert(chain, key).map_err(|e| named(file, e))?
            }
        };
        Ok(Arc::new(config))
    }

    fn verifier(&self, file: &Path, provider: Arc<CryptoProvider>) -> io::Result<Arc<WebPkiServerVerifier>> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(file).map_err(|e| named(file, e))? {
            roots.add(certificate.map_err(|e| named(file, e))?).map_err(|e| named(file, e))?;
        }
        if roots.is_empty() {
            return Err(named(file, "no certificate in it"));
        }
        let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        if let Some(revoked) = &self.revoked {
            let lists =
                CertificateRevocationListDer::pem_file_iter(revoked).map_err(|e| named(revoked, e))?;
            let lists = lists.collect::<Result<Vec<_>, _>>().map_err(|e| named(revoked, e))?;
            if lists.is_empty() {
                return Err(named(revoked, "no revocation list in it"));
            }
            builder = builder.with_crls(lists).only_check_end_entity_revocation();
        }
        builder.build().map_err(|e| named(self.revoked.as_deref().unwrap_or(file), e))
    }
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certified(file: &Path) -> io::Result<ChainAndKey> {
    let pem = zeroize::Zeroizing::new(std::fs::read(file).map_err(|e| named(file, e))?);
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| named(file, e))?;
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|e| named(file, format_args!("private key: {e}")))?;
    Ok((chain, key))
}

fn named(file: &Path, e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {e}", file.display()))
}

/// Takes any certificate, but checks that the server holds its key.
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
