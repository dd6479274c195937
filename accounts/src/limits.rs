//! Limits of a domain or of one user (table `vlimits`).

use crate::ServiceFlags;

/// One row of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// When the domain expires, seconds since 1970; `None`: never.
    pub domain_expiry: Option<i64>,
    /// When passwords expire, seconds since 1970; `None`: never.
    pub password_expiry: Option<i64>,
    /// Most accounts; `None`: any number.
    pub max_accounts: Option<i64>,
    /// Most aliases; `None`: any number.
    pub max_aliases: Option<i64>,
    /// Bytes of all mailboxes of the domain together; 0: no limit.
    pub disk_quota: i64,
    /// Messages of all mailboxes of the domain together; 0: no limit.
    pub max_messages: i64,
    /// Quota in bytes of a new account; 0: none.
    pub default_quota: i64,
    /// Quota in messages of a new account; 0: none.
    pub default_max_messages: i64,
    /// What is switched off for every account of the domain.
    pub disabled: ServiceFlags,
}

impl Limits {
    /// No limits.
    pub const NONE: Self = Self {
        domain_expiry: None,
        password_expiry: None,
        max_accounts: None,
        max_aliases: None,
        disk_quota: 0,
        max_messages: 0,
        default_quota: 0,
        default_max_messages: 0,
        disabled: ServiceFlags::NONE,
    };

    /// The `disable_*` columns and the flag each one stands for.
    pub(crate) const DISABLE: [(&'static str, ServiceFlags); 7] = [
        ("disable_pop", ServiceFlags::NO_POP),
        ("disable_imap", ServiceFlags::NO_IMAP),
        ("disable_dialup", ServiceFlags::NO_DIALUP),
        ("disable_passwordchanging", ServiceFlags::NO_PASSWORD_CHANGE),
        ("disable_webmail", ServiceFlags::NO_WEBMAIL),
        ("disable_relay", ServiceFlags::NO_RELAY),
        ("disable_smtp", ServiceFlags::NO_SMTP),
    ];

    /// The flags of an account under these limits: its own and what the limits switch off, unless the
    /// account is exempt ([`ServiceFlags::OVERRIDE`]).
    #[must_use]
    pub fn merge(&self, own: ServiceFlags) -> ServiceFlags {
        if own.contains(ServiceFlags::OVERRIDE) { own } else { own | self.disabled }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exempt_accounts_keep_their_flags() {
        let limits = Limits { disabled: ServiceFlags::NO_DIALUP, ..Limits::NONE };
        assert_eq!(limits.merge(ServiceFlags::NO_POP), ServiceFlags::NO_POP | ServiceFlags::NO_DIALUP);
        assert_eq!(limits.merge(ServiceFlags::OVERRIDE), ServiceFlags::OVERRIDE);
    }

    #[test]
    fn dialup_is_dialup_and_not_pop() {
        let flag = Limits::DISABLE.iter().find(|d| d.0 == "disable_dialup").unwrap().1;
        assert_eq!(flag, ServiceFlags::NO_DIALUP);
    }
}
