//! The variables this program reads; whatever else a caller sets has no effect.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use unix::durable::Durability;

/// Every variable there is for this program.
///
/// Which queue: QUEUEDIR, QUEUE_BASE, QUEUE_START, QUEUE_COUNT, CONFSPLIT, BIGTODO, CONTROLDIR,
/// SYSCONFDIR. How safe: USE_FSYNC, USE_FDATASYNC, USE_SYNCDIR. How long: DEATH. Head of the
/// message: HIDE_HOST, HOSTNAME, FASTQUEUE, TCPREMOTEIP, TCPREMOTEINFO, RELAYCLIENT,
/// ORIGINIPFIELD. Envelope: EXTRAQUEUE, QUARANTINE, QQEH. Answer: QMAIL_QUEUE_CUSTOM_ERROR, ERROR_FD.
const NAMES: &[&str] = &[
    "BIGTODO",
    "CONFSPLIT",
    "CONTROLDIR",
    "DEATH",
    "ERROR_FD",
    "EXTRAQUEUE",
    "FASTQUEUE",
    "HIDE_HOST",
    "HOSTNAME",
    "ORIGINIPFIELD",
    "QMAIL_QUEUE_CUSTOM_ERROR",
    "QQEH",
    "QUARANTINE",
    "QUEUEDIR",
    "QUEUE_BASE",
    "QUEUE_COUNT",
    "QUEUE_START",
    "RELAYCLIENT",
    "SYSCONFDIR",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
    "USE_FDATASYNC",
    "USE_FSYNC",
    "USE_SYNCDIR",
];

/// Those that a client may send along with one message: they change nothing but that message.
pub const OF_A_MESSAGE: &[&str] = &[
    "EXTRAQUEUE",
    "FASTQUEUE",
    "HIDE_HOST",
    "HOSTNAME",
    "ORIGINIPFIELD",
    "QQEH",
    "QUARANTINE",
    "RELAYCLIENT",
    "TCPREMOTEINFO",
    "TCPREMOTEIP",
];

/// The variables of [`NAMES`] that are set.
#[derive(Debug, Clone)]
pub struct Variables(BTreeMap<&'static str, OsString>);

impl Variables {
    /// Read once, at the start.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self::found_by(|name| std::env::var_os(name))
    }

    /// Those that `find` finds.
    pub fn found_by(find: impl Fn(&str) -> Option<OsString>) -> Self {
        Self(NAMES.iter().filter_map(|&n| Some((n, find(n)?))).collect())
    }

    /// Those of this process, but for those of a message, which are what the client sent.
    #[must_use]
    pub fn with_message(&self, sent: &[(Vec<u8>, Vec<u8>)]) -> Self {
        let mut all = self.0.clone();
        for &name in OF_A_MESSAGE {
            all.remove(name);
            if let Some((_, value)) = sent.iter().find(|(n, _)| n == name.as_bytes()) {
                all.insert(name, OsString::from_vec(value.clone()));
            }
        }
        Self(all)
    }

    #[cfg(test)]
    pub(crate) fn from(pairs: &[(&'static str, &str)]) -> Self {
        Self(pairs.iter().map(|&(n, v)| (n, v.into())).collect())
    }

    /// Is it set, also to nothing?
    pub fn is_set(&self, name: &str) -> bool {
        debug_assert!(NAMES.contains(&name), "{name} is not listed");
        self.0.contains_key(name)
    }

    /// Its bytes, when it is set and not empty.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        debug_assert!(NAMES.contains(&name), "{name} is not listed");
        self.0.get(name).map(|v| v.as_bytes()).filter(|v| !v.is_empty())
    }

    /// FASTQUEUE: a number other than 0 skips everything that is not needed to queue a message.
    pub fn is_fast(&self) -> bool {
        self.number("FASTQUEUE").is_some_and(|n| n != 0)
    }

    /// It as a number; anything that is no number counts as unset.
    pub fn number(&self, name: &str) -> Option<u32> {
        std::str::from_utf8(self.value(name)?).ok()?.trim().parse().ok()
    }

    /// Where a custom error text goes: 2 unless ERROR_FD says otherwise, nowhere for -1.
    pub fn error_fd(&self) -> Option<RawFd> {
        match self.value("ERROR_FD").and_then(|v| std::str::from_utf8(v).ok()?.trim().parse().ok()) {
            None => Some(2),
            Some(n) => Some(n).filter(|&n: &RawFd| n >= 2),
        }
    }

    /// What is forced to the disk: everything, unless switched off with 0.
    pub fn durability(&self) -> Durability {
        let switch = |name| self.value(name).map(|v| v != b"0");
        Durability::chosen(switch("USE_FSYNC"), switch("USE_FDATASYNC"), switch("USE_SYNCDIR"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = include_str!("../../man/qmail-queue.8");

    fn terms() -> Vec<&'static str> {
        PAGE.lines().filter_map(|l| l.strip_prefix(".B ")).collect()
    }

    #[test]
    fn every_variable_and_exit_code_is_in_the_manual_page() {
        let terms = terms();
        for name in NAMES {
            assert!(terms.contains(name), "{name}");
        }
        for row in crate::exit::TABLE {
            let entry = format!(".TP\n.B {}\n{}\n", row.code.0, row.text);
            assert!(PAGE.contains(&entry), "{entry}");
        }
    }

    #[test]
    fn error_text_goes_to_a_descriptor_that_is_no_input() {
        let fd = |v| Variables::from(&[("ERROR_FD", v)]).error_fd();
        assert_eq!(
            (fd("2"), fd("7"), fd("-1"), fd("0"), fd("x"), fd("")),
            (Some(2), Some(7), None, None, Some(2), Some(2))
        );
    }
}
