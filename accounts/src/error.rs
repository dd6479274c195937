//! The two ways an account operation can fail.

use std::fmt::Display;

/// Found, absent, or cannot tell: `Answer<Option<T>>`.
pub type Answer<T> = Result<T, Unavailable>;

/// The store or the domain table cannot tell. Temporary by nature: try again, never read it as "no".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(String);

impl Unavailable {
    /// `what: why`; `what` names the file, server or table.
    pub fn new(what: impl Display, why: impl Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

/// A value that an account, alias or domain cannot have; the text names it and says what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {value}: {why}")]
pub struct Invalid {
    /// What the value is: `user name`, `domain`, `quota`.
    pub what: &'static str,
    /// The value, escaped for printing.
    pub value: String,
    /// What is wrong and what is allowed.
    pub why: &'static str,
}

impl Invalid {
    /// An invalid `value` for `what`.
    #[must_use]
    pub fn new(what: &'static str, value: &[u8], why: &'static str) -> Self {
        Self { what, value: value.escape_ascii().to_string(), why }
    }
}
