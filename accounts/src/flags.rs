//! What an account may do: the bits of the `pw_gid` column.

use std::ops::{BitOr, BitOrAssign};

/// A set of service flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct ServiceFlags(u32);

impl ServiceFlags {
    /// Nothing is switched off.
    pub const NONE: Self = Self(0);
    /// May not change its password.
    pub const NO_PASSWORD_CHANGE: Self = Self(0x01);
    /// No POP3.
    pub const NO_POP: Self = Self(0x02);
    /// No web mail.
    pub const NO_WEBMAIL: Self = Self(0x04);
    /// No IMAP.
    pub const NO_IMAP: Self = Self(0x08);
    /// Over quota: mail is bounced.
    pub const BOUNCE_MAIL: Self = Self(0x10);
    /// May not relay.
    pub const NO_RELAY: Self = Self(0x20);
    /// No dial-up.
    pub const NO_DIALUP: Self = Self(0x40);
    /// Administers its domain.
    pub const ADMIN: Self = Self(0x80);
    /// No SMTP.
    pub const NO_SMTP: Self = Self(0x100);
    /// Free for the site.
    pub const USER0: Self = Self(0x200);
    /// Free for the site.
    pub const USER1: Self = Self(0x400);
    /// Free for the site.
    pub const USER2: Self = Self(0x800);
    /// Free for the site.
    pub const USER3: Self = Self(0x1000);
    /// Exempt from the limits of its domain.
    pub const OVERRIDE: Self = Self(0x2000);

    const NAMES: [(Self, &'static str); 14] = [
        (Self::NO_PASSWORD_CHANGE, "no-password-change"),
        (Self::NO_POP, "no-pop"),
        (Self::NO_WEBMAIL, "no-webmail"),
        (Self::NO_IMAP, "no-imap"),
        (Self::BOUNCE_MAIL, "over-quota"),
        (Self::NO_RELAY, "no-relay"),
        (Self::NO_DIALUP, "no-dialup"),
        (Self::ADMIN, "admin"),
        (Self::NO_SMTP, "no-smtp"),
        (Self::USER0, "user0"),
        (Self::USER1, "user1"),
        (Self::USER2, "user2"),
        (Self::USER3, "user3"),
        (Self::OVERRIDE, "override"),
    ];

    /// The set with these bits; bits without a meaning are kept.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The bits as the database has them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Are all flags of `other` in the set?
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set without the flags of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of the flags in the set.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(f, _)| self.contains(*f)).map(|(_, n)| n)
    }
}

impl BitOr for ServiceFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for ServiceFlags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_database() {
        assert_eq!(ServiceFlags::OVERRIDE.bits(), 0x2000);
        let set = ServiceFlags::from_bits(0x102);
        assert_eq!(set.names().collect::<Vec<_>>(), ["no-pop", "no-smtp"]);
        assert_eq!(set.without(ServiceFlags::NO_POP), ServiceFlags::NO_SMTP);
    }
}
