//! What a handshake came to.

use rustls::{CommonState, ProtocolVersion, ServerConnection};

use crate::{distinguished, suites};

/// A finished handshake, as variables and logs have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.3` or `TLSv1.2`.
    pub version: String,
    /// OpenSSL's name of the cipher.
    pub cipher: String,
    /// Length of its key.
    pub bits: u16,
    /// The host name the client asked for.
    pub name: Option<String>,
    /// The client's certificate, when it sent one that was accepted.
    pub client: Option<Client>,
}

/// A verified certificate of a client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// Its subject, RFC 4514; empty when it cannot be read.
    pub subject: String,
    /// Its issuer.
    pub issuer: String,
}

impl Facts {
    /// Of a server's side.
    #[must_use]
    pub fn of_server(tls: &ServerConnection) -> Self {
        let mut facts = Self::of(tls);
        facts.name = tls.server_name().map(str::to_owned);
        facts
    }

    /// Of either side.
    #[must_use]
    pub fn of(tls: &CommonState) -> Self {
        let version = match tls.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        };
        let cipher = tls.negotiated_cipher_suite().and_then(|s| suites::named(s.suite()));
        let client = tls.peer_certificates().and_then(<[_]>::first).map(|certificate| {
            let names = distinguished::names(certificate).unwrap_or_default();
            Client { subject: names.subject, issuer: names.issuer }
        });
        Self {
            version: version.to_owned(),
            cipher: cipher.map_or("", |c| c.openssl).to_owned(),
            bits: cipher.map_or(0, |c| c.bits),
            name: None,
            client,
        }
    }
}
