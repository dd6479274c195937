//! What a server offers and asks for.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DEFAULT_VERSIONS, RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Longest session that a client may bring back in a ticket, bytes.
const LONGEST_TICKET: usize = 16 * 1024;

/// Files and choices of a server.
#[derive(Debug, Clone)]
pub struct Options {
    /// PEM file with the private key and the certificate chain.
    pub certificate: PathBuf,
    /// Directory of such files for other names, `NAME.pem`; `_` as the first label stands for any one label.
    /// A directory that does not exist holds none.
    pub names: Option<PathBuf>,
    /// Whose clients are believed.
    pub clients: Option<Clients>,
    /// Versions; empty: all that are spoken.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Ciphers, the preferred first; empty: all that are offered.
    pub suites: Vec<SupportedCipherSuite>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// PEM file with the certificates of authorities.
    pub authorities: PathBuf,
    /// PEM file with revocation lists. With it, a certificate about which no list speaks is refused.
    pub revoked: Option<PathBuf>,
    /// Is a client without a certificate refused?
    pub required: bool,
}

impl Options {
    /// A server with one certificate and nothing asked of clients.
    #[must_use]
    pub fn new(certificate: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            names: None,
            clients: None,
            versions: Vec::new(),
            suites: Vec::new(),
        }
    }

    /// Reads all files.
    ///
    /// # Errors
    /// A file cannot be read or does not hold what it must; the error names it.
    pub fn load(&self) -> io::Result<Arc<ServerConfig>> {
        let mut provider = default_provider();
        if !self.suites.is_empty() {
            provider.cipher_suites.clone_from(&self.suites);
        }
        let provider = Arc::new(provider);
        let default = Arc::new(certified(&self.certificate, &provider)?);
        let names = self.names.as_deref().map_or_else(|| Ok(HashMap::new()), |d| by_name(d, &provider))?;
        let versions = if self.versions.is_empty() { DEFAULT_VERSIONS } else { &self.versions };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(|e| io::Error::other(format!("versions and ciphers do not fit together: {e}")))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(verifier(clients, provider)?),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Certificates { default, names }));
        config.ticketer = tickets()?;
        Ok(Arc::new(config))
    }
}

/// Keys for tickets, made by chance; clients resume sessions with them while they last.
///
/// # Errors
/// The system has no random numbers.
pub fn tickets() -> io::Result<Arc<dyn rustls::server::ProducesTickets>> {
    let made = Ticketer::new().map_err(io::Error::other)?;
    // A ticketer refuses what is longer than all it has made itself. The first copy of a process to see a
    // ticket has made none, so the longest is made here: one that holds a client's certificates.
    let _ = made.encrypt(&[0; LONGEST_TICKET]);
    Ok(made)
}

fn verifier(
    clients: &Clients,
    provider: Arc<CryptoProvider>,
) -> io::Result<Arc<dyn rustls::server::danger::ClientCertVerifier>> {
    let file = &clients.authorities;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|e| named(file, e))? {
        roots.add(certificate.map_err(|e| named(file, e))?).map_err(|e| named(file, e))?;
    }
    if roots.is_empty() {
        return Err(named(file, "no certificate in it"));
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(revoked) = &clients.revoked {
        let lists = CertificateRevocationListDer::pem_file_iter(revoked).map_err(|e| named(revoked, e))?;
        let lists = lists.collect::<Result<Vec<_>, _>>().map_err(|e| named(revoked, e))?;
        if lists.is_empty() {
            return Err(named(revoked, "no revocation list in it"));
        }
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if !clients.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|e| named(clients.revoked.as_deref().unwrap_or(file), e))
}

/// Certificate chain and key of one PEM file.
fn certified(file: &Path, provider: &CryptoProvider) -> io::Result<CertifiedKey> {
    let pem = zeroize::Zeroizing::new(fs::read(file).map_err(|e| named(file, e))?);
    let chain = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|e| named(file, e))?;
    if chain.is_empty() {
        return Err(named(file, "no certificate in it"));
    }
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|e| named(file, format_args!("private key: {e}")))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|e| named(file, e))
}

fn by_name(directory: &Path, provider: &CryptoProvider) -> io::Result<HashMap<String, Arc<CertifiedKey>>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(e) => return Err(named(directory, e)),
    };
    let mut all = HashMap::new();
    for entry in entries {
        let path = entry.map_err(|e| named(directory, e))?.path();
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".pem"));
        if let Some(name) = name {
            all.insert(name.to_ascii_lowercase(), Arc::new(certified(&path, provider)?));
        }
    }
    Ok(all)
}

fn named(file: &Path, e: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {e}", file.display()))
}

/// Chooses by the name that the client asks for.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    names: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let by_name = name.map(str::to_ascii_lowercase).and_then(|name| {
            self.names.get(&name).or_else(|| {
                let (_, rest) = name.split_once('.')?;
                self.names.get(&format!("_.{rest}"))
            })
        });
        by_name.unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.find(hello.server_name()).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Path, name: &str) -> Vec<u8> {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        fs::write(file, format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem())).unwrap();
        made.cert.der().to_vec()
    }

    #[test]
    fn certificates_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let default = write(&dir.path().join("server.pem"), "default.example");
        let names = dir.path().join("sni");
        fs::create_dir(&names).unwrap();
        let exact = write(&names.join("a.example.pem"), "a.example");
        let wild = write(&names.join("_.b.example.pem"), "*.b.example");
        fs::write(names.join("README"), "not a certificate").unwrap();
        let provider = default_provider();
        let all = Certificates {
            default: Arc::new(certified(&dir.path().join("server.pem"), &provider).unwrap()),
            names: by_name(&names, &provider).unwrap(),
        };
        let got = |name| all.find(name).cert[0].to_vec();
        assert_eq!(got(None), default);
        assert_eq!(got(Some("A.Example")), exact);
        assert_eq!(got(Some("x.b.example")), wild);
        for other in ["b.example", "y.x.b.example", "a.example.org", "", "."] {
            assert_eq!(got(Some(other)), default, "{other}");
        }
        assert!(by_name(&dir.path().join("none"), &provider).unwrap().is_empty());
    }

    #[test]
    fn files_that_do_not_hold_what_they_must_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.pem");
        let error = || Options::new(&file).load().unwrap_err().to_string();
        assert!(error().contains("server.pem: No such file"), "{}", error());
        fs::write(&file, "").unwrap();
        assert!(error().contains("server.pem: no certificate in it"), "{}", error());
        let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        fs::write(&file, made.cert.pem()).unwrap();
        assert!(error().contains("private key"), "{}", error());
        let other = rcgen::KeyPair::generate().unwrap();
        fs::write(&file, format!("{}{}", other.serialize_pem(), made.cert.pem())).unwrap();
        assert!(Options::new(&file).load().is_err(), "a key of another certificate");
        write(&file, "a.example");
        assert!(Options::new(&file).load().is_ok());
        let mut options = Options::new(&file);
        options.clients =
            Some(Clients { authorities: dir.path().join("ca.pem"), revoked: None, required: true });
        assert!(options.load().unwrap_err().to_string().contains("ca.pem"));
        fs::write(dir.path().join("ca.pem"), "nothing\n").unwrap();
        assert!(options.load().unwrap_err().to_string().contains("ca.pem: no certificate in it"));
    }
}
