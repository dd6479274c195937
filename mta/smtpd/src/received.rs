//! The Received field this program adds.

use smtp::command::sanitized;
use smtp::server::Trace;

/// Facts of the connection that the field tells.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Reverse name of the client, or `unknown`.
    pub(crate) host: Vec<u8>,
    /// Its address.
    pub(crate) ip: Vec<u8>,
    /// What ident said.
    pub(crate) info: Option<Vec<u8>>,
    /// Our name.
    pub(crate) local: Vec<u8>,
    /// Tell nothing of the client.
    pub(crate) hide: bool,
    /// TLS of an outside provider, in its words.
    pub(crate) tls_provider: Option<Vec<u8>>,
}

/// The whole field, lines ending with LF.
pub(crate) fn field(origin: &Origin, trace: &Trace, pid: u32, date: &str) -> Vec<u8> {
    let mut out = format!("Received: indimail-mta smtpd {pid}");
    if !origin.hide {
        let host = sanitized(&origin.host);
        out.push_str(&format!(" from {host}"));
        if let Some(helo) = trace.helo.as_ref().filter(|h| !h.eq_ignore_ascii_case(&origin.host)) {
            out.push_str(&format!(" (HELO {})", sanitized(helo)));
        }
        let ip = sanitized(&origin.ip);
        match trace.user.as_ref().or(origin.info.as_ref()) {
            Some(info) => out.push_str(&format!(" ({}@[{ip}])", sanitized(info))),
            None => out.push_str(&format!(" ([{ip}])")),
        }
    }
    if let Some(provider) = &origin.tls_provider {
        let text: Vec<_> = provider.split(|b| b" \t".contains(b)).map(sanitized).collect();
        out.push_str(&format!("\n  (tls provider {})", text.join(" ")));
    }
    out.push_str("\n ");
    if !origin.hide {
        out.push_str(&format!(" by {}", sanitized(&origin.local)));
    }
    out.push_str(&format!(" with {}", trace.protocol));
    if let Some(tls) = trace.tls.as_ref().filter(|t| !t.cipher.is_empty()) {
        out.push_str(&format!(" ({} {})", tls.version, tls.cipher));
    }
    out.push_str(&format!("; {date}\n"));
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use smtp::server::TlsFacts;

    fn origin() -> Origin {
        Origin {
            host: b"unknown".to_vec(),
            ip: b"192.0.2.7".to_vec(),
            info: None,
            local: b"mx.example".to_vec(),
            hide: false,
            tls_provider: None,
        }
    }

    fn trace() -> Trace {
        Trace { helo: Some(b"c\n.example".to_vec()), protocol: "ESMTP", tls: None, user: None }
    }

    fn shown(origin: &Origin, trace: &Trace) -> String {
        String::from_utf8(field(origin, trace, 7, "DATE")).unwrap()
    }

    #[test]
    fn tells_the_address_always_and_nothing_dangerous() {
        assert_eq!(
            shown(&origin(), &trace()),
            "Received: indimail-mta smtpd 7 from unknown (HELO c?.example) ([192.0.2.7])\n  by mx.example with ESMTP; DATE\n"
        );
    }

    #[test]
    fn tells_the_user_and_tls() {
        let trace = Trace {
            helo: Some(b"UNKNOWN".to_vec()),
            protocol: "ESMTPSA",
            tls: Some(TlsFacts { version: "TLSv1.3".into(), cipher: "TLS13_AES_256_GCM_SHA384".into() }),
            user: Some(b"u@d".to_vec()),
        };
        assert_eq!(
            shown(&origin(), &trace),
            "Received: indimail-mta smtpd 7 from unknown (u@d@[192.0.2.7])\n  by mx.example with ESMTPSA (TLSv1.3 TLS13_AES_256_GCM_SHA384); DATE\n"
        );
    }

    #[test]
    fn hides_the_client_when_told() {
        let hidden = Origin { hide: true, ..origin() };
        assert_eq!(shown(&hidden, &trace()), "Received: indimail-mta smtpd 7\n  with ESMTP; DATE\n");
    }
}
