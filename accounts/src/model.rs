//! One account.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{Address, Invalid, Quota, ServiceFlags};

/// Bytes that are wiped when dropped and never printed.
#[derive(Clone, Default)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one place that needs them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for SecretBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes.to_vec())
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

/// A Unix user and group id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UnixIds {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// How far an account is known to the other hosts of a cluster (column `pw_uid`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncState(pub i64);

impl SyncState {
    /// In step.
    pub const IN_STEP: Self = Self(1);
    /// Not yet in the host table.
    pub const ADD_PENDING: Self = Self(2);
    /// The new password is not there yet.
    pub const PASSWORD_PENDING: Self = Self(3);
    /// To be removed.
    pub const DELETE_PENDING: Self = Self(4);
}

/// One account as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// User and real domain.
    pub address: Address,
    /// Password field: a crypt(3) hash or an argon2 string; empty never matches.
    pub password: SecretBytes,
    /// SCRAM secret or `{CRAM}` clear text.
    pub scram: Option<SecretBytes>,
    /// Unix ids of its own; `None`: it shares those of its domain.
    pub own_ids: Option<UnixIds>,
    /// Cluster state.
    pub state: SyncState,
    /// What it may not do.
    pub flags: ServiceFlags,
    /// Free text: UTF-8, at most 48 bytes, without colon and control characters.
    pub gecos: String,
    /// Home directory; the Maildir is `Maildir` in it.
    pub home: PathBuf,
    /// How much the mailbox may hold.
    pub quota: Quota,
    /// May it receive mail and log in?
    pub active: bool,
}

impl Account {
    /// A new active account without password, flags and quota.
    #[must_use]
    pub fn new(address: Address, home: PathBuf) -> Self {
        Self {
            address,
            password: SecretBytes::default(),
            scram: None,
            own_ids: None,
            state: SyncState::IN_STEP,
            flags: ServiceFlags::NONE,
            gecos: String::new(),
            home,
            quota: Quota::NONE,
            active: true,
        }
    }

    /// Is it over quota, so that mail to it bounces?
    #[must_use]
    pub fn is_over_quota(&self) -> bool {
        self.flags.contains(ServiceFlags::BOUNCE_MAIL)
    }

    /// The password field as daemons pass it on: `scram,crypt` when there is a SCRAM secret.
    #[must_use]
    pub fn combined_password(&self) -> SecretBytes {
        match &self.scram {
            Some(scram) => SecretBytes::new([scram.expose(), b",", self.password.expose()].concat()),
            None => self.password.clone(),
        }
    }

    /// Checks what must hold before an account is written.
    ///
    /// # Errors
    /// A field is too long for its column or holds a character that text records cannot carry.
    pub fn check(&self) -> Result<(), Invalid> {
        check_gecos(&self.gecos)?;
        check_home(&self.home)?;
        // The value of a secret never goes into a message.
        let secret = |what, bytes: &[u8], max, why| {
            let bad = bytes.len() > max || bytes.iter().any(u8::is_ascii_control);
            if bad { Err(Invalid::new(what, b"(not shown)", why)) } else { Ok(()) }
        };
        secret(
            "password field",
            self.password.expose(),
            128,
            "expected at most 128 bytes without control characters",
        )?;
        if let Some(scram) = &self.scram {
            secret(
                "scram field",
                scram.expose(),
                255,
                "expected at most 255 bytes without control characters",
            )?;
        }
        crate::parse_quota(self.quota.to_string().as_bytes())?;
        if self.address.is_reserved() && !self.active {
            return Err(Invalid::new(
                "account",
                self.address.local().as_bytes(),
                "a reserved name is always active",
            ));
        }
        Ok(())
    }
}

fn check_gecos(gecos: &str) -> Result<(), Invalid> {
    if gecos.len() > 48 || gecos.chars().any(|c| c == ':' || c.is_control()) {
        return Err(Invalid::new(
            "gecos",
            gecos.as_bytes(),
            "expected at most 48 bytes without colon, newline and control characters",
        ));
    }
    Ok(())
}

fn check_home(home: &Path) -> Result<(), Invalid> {
    let bytes = home.as_os_str().as_bytes();
    let plain = std::str::from_utf8(bytes).is_ok_and(|t| !t.chars().any(|c| c == ':' || c.is_control()));
    if !home.is_absolute() || bytes.len() > 156 || !plain || bytes.split(|&b| b == b'/').any(|c| c == b"..") {
        return Err(Invalid::new(
            "home",
            bytes,
            "expected an absolute path of at most 156 bytes without .., colon and control characters",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account::new(Address::parse(b"a@b.c").unwrap(), "/home/a".into())
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut a = account();
        a.password = b"hidden-hash".as_slice().into();
        assert!(!format!("{a:?}").contains("hidden"));
        a.password = SecretBytes::new(vec![b'x'; 129]);
        assert!(!a.check().unwrap_err().to_string().contains("xx"));
    }

    #[test]
    fn text_that_would_break_records_is_refused() {
        assert!(account().check().is_ok());
        for gecos in ["a:b", "a\nb", &"x".repeat(49)] {
            assert!(Account { gecos: gecos.into(), ..account() }.check().is_err(), "{gecos:?}");
        }
        for home in ["relative", "/a:b", "/a\nb", "/a/../b"] {
            assert!(Account { home: home.into(), ..account() }.check().is_err(), "{home:?}");
        }
    }

    #[test]
    fn a_quota_that_passes_its_column_is_refused() {
        let quota = Quota { bytes: Some(10u64.pow(17)), messages: Some(10u64.pow(17)) };
        assert!(Account { quota, ..account() }.check().is_err());
    }

    #[test]
    fn reserved_accounts_stay_active() {
        let address = Address::parse(b"postmaster@b.c").unwrap();
        assert!(Account { address, active: false, ..account() }.check().is_err());
    }

    #[test]
    fn combined_field_has_the_scram_secret_first() {
        let mut a = account();
        a.password = b"$6$x".as_slice().into();
        assert_eq!(a.combined_password().expose(), b"$6$x");
        a.scram = Some(b"{SCRAM-SHA-1}x".as_slice().into());
        assert_eq!(a.combined_password().expose(), b"{SCRAM-SHA-1}x,$6$x");
    }
}
