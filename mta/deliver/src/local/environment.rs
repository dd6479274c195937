//! The variables of a delivery and the lines made from its envelope.

use message::trace;
use program::Environment;

use super::{Settings, os};

/// What the recipient's `-owner` files say about forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// There is none: the sender stays.
    None,
    /// Bounces of forwards go to `local-owner`.
    Plain,
    /// And the failing address is encoded in the sender.
    PerRecipient,
}

/// Everything that is known about a delivery before the first step.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The recipient.
    pub recipient: Vec<u8>,
    /// Sender of forwards.
    pub new_sender: Vec<u8>,
    /// `Delivered-To` line (DTLINE).
    pub delivered_to: Vec<u8>,
    /// `Return-Path` line (RPLINE).
    pub return_path: Vec<u8>,
    /// `From ` line (UFLINE).
    pub mbox_from: Vec<u8>,
    /// Variables for programs.
    pub environment: Environment,
}

impl Facts {
    /// The facts; `default_at` is where in the extension the part begins that `default` stood for.
    #[must_use]
    pub fn new(settings: &Settings, owner: Owner, default_at: Option<usize>) -> Self {
        let recipient = [&settings.local[..], b"@", &settings.domain].concat();
        let new_sender = new_sender(settings, owner);
        let delivered_to = trace::delivered_to(&recipient);
        let return_path = trace::return_path(&settings.sender);
        let mbox_from = trace::mbox_from(&settings.sender, crate::now());

        let mut environment = settings.environment.clone();
        crate::shell::extend_path(&mut environment, &settings.layout);
        let mut set = |name: &str, value: &[u8]| environment.set(name, os(value));
        set("USER", &settings.user);
        set("HOME", settings.home.as_os_str().as_encoded_bytes());
        set("LOCAL", &settings.local);
        set("HOST", &settings.domain);
        set("RECIPIENT", &recipient);
        set("SENDER", &settings.sender);
        set("NEWSENDER", &new_sender);
        set("DTLINE", &delivered_to);
        set("RPLINE", &return_path);
        set("UFLINE", &mbox_from);
        set("QQEH", &settings.extra_header);
        let mut ext = &settings.ext[..];
        set("EXT", ext);
        for name in ["EXT2", "EXT3", "EXT4"] {
            ext = ext.iter().position(|&b| b == b'-').map_or(&b""[..], |dash| &ext[dash + 1..]);
            set(name, ext);
        }
        let mut host = &settings.domain[..];
        for name in ["HOST2", "HOST3", "HOST4"] {
            host = host.iter().rposition(|&b| b == b'.').map_or(&b""[..], |dot| &host[..dot]);
            set(name, host);
        }
        match default_at {
            Some(at) => set("DEFAULT", settings.ext.get(at..).unwrap_or_default()),
            None => environment.remove("DEFAULT"),
        }
        Self { recipient, new_sender, delivered_to, return_path, mbox_from, environment }
    }
}

fn new_sender(settings: &Settings, owner: Owner) -> Vec<u8> {
    // Mail that must not bounce again keeps its sender.
    if settings.sender.is_empty() || settings.sender == b"#@[]" {
        return settings.sender.clone();
    }
    match owner {
        Owner::None => settings.sender.clone(),
        Owner::Plain => [&settings.local[..], b"-owner@", &settings.domain].concat(),
        Owner::PerRecipient => [&settings.local[..], b"-owner-@", &settings.domain, b"-@[]"].concat(),
    }
}

/// What SANITIZE_ENV leaves: durability, the message's own variables, and the names in its list.
#[must_use]
pub fn sanitized(environment: &Environment) -> Environment {
    let Some(wanted) = environment.bytes("SANITIZE_ENV") else {
        return environment.clone();
    };
    const ALWAYS: &[&[u8]] =
        &[b"USE_FSYNC", b"USE_FDATASYNC", b"USE_SYNCDIR", b"MESSID", b"SANITIZE_ENV", b"INLOOKUP_ANSWER"];
    let exported = environment.bytes("EXPORTED_HEADERS").unwrap_or_default();
    let keep = |name: &[u8]| {
        let listed = |list: &[u8]| list.split(|&b| b == b':').any(|n| n == name);
        ALWAYS.contains(&name) || listed(wanted) || listed(exported)
    };
    environment.iter().filter(|(name, _)| keep(name.as_encoded_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests_support::settings;

    fn value(facts: &Facts, name: &str) -> String {
        String::from_utf8_lossy(facts.environment.bytes(name).unwrap_or(b"(unset)")).into_owned()
    }

    #[test]
    fn parts_of_extension_and_host() {
        let mut s = settings();
        s.ext = b"a-b-c-d-E".to_vec();
        s.domain = b"w.x.y.z".to_vec();
        let facts = Facts::new(&s, Owner::None, Some(2));
        for (name, wanted) in [
            ("EXT", "a-b-c-d-E"),
            ("EXT2", "b-c-d-E"),
            ("EXT3", "c-d-E"),
            ("EXT4", "d-E"),
            ("DEFAULT", "b-c-d-E"),
            ("HOST", "w.x.y.z"),
            ("HOST2", "w.x.y"),
            ("HOST3", "w.x"),
            ("HOST4", "w"),
            ("DTLINE", "Delivered-To: joe-a@w.x.y.z\n"),
            ("RPLINE", "Return-Path: <s@t>\n"),
            ("NEWSENDER", "s@t"),
        ] {
            assert_eq!(value(&facts, name), wanted, "{name}");
        }
        assert_eq!(value(&Facts::new(&s, Owner::None, None), "DEFAULT"), "(unset)");
    }

    #[test]
    fn owners_take_bounces_but_not_of_bounces() {
        let mut s = settings();
        assert_eq!(Facts::new(&s, Owner::Plain, None).new_sender, b"joe-a-owner@x.y");
        assert_eq!(Facts::new(&s, Owner::PerRecipient, None).new_sender, b"joe-a-owner-@x.y-@[]");
        for sender in [&b""[..], b"#@[]"] {
            s.sender = sender.to_vec();
            assert_eq!(Facts::new(&s, Owner::PerRecipient, None).new_sender, sender);
        }
    }

    #[test]
    fn fix_18_sanitizing_keeps_a_list_and_runs_nothing() {
        let environment = Environment::from_iter([
            ("SANITIZE_ENV", "KEEP:PATH"),
            ("KEEP", "1"),
            ("DROP", "2"),
            ("MESSID", "3/4"),
            ("X_H", "5"),
            ("EXPORTED_HEADERS", "X_H"),
            ("USE_FSYNC", "1"),
            ("LD_PRELOAD", "x"),
        ]);
        let left: Vec<_> = sanitized(&environment).iter().map(|(n, _)| n.to_owned()).collect();
        assert_eq!(left, ["KEEP", "MESSID", "SANITIZE_ENV", "USE_FSYNC", "X_H"]);
        let plain = Environment::from_iter([("DROP", "2")]);
        assert_eq!(sanitized(&plain), plain);
    }
}
