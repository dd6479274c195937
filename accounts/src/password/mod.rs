//! Passwords: checking against what is stored, and making what is to be stored.
//!
//! ```text
//! stored field ─► Scheme of its prefix ─► crypt(3) of the C library   DES $1$ $5$ $6$ $2a$ $2b$ $2y$ $7$ $y$ $gy$
//!                                      ├► argon2                      $argon2id$
//!                                      ├► SCRAM                       {SCRAM-SHA-1} {SCRAM-SHA-256} {SCRAM-SHA-512}
//!                                      └► clear text                  {CRAM}
//! "scram,crypt"  ─► the part after the comma; the scram part when that is empty
//! ```
//!
//! A field that is empty, locked (`*`, `!`) or of no known scheme matches no password, nor does one that
//! the C library answers with a failure token. All comparisons take the same time wherever they differ.
//! Work done for a wrong password is done where there is nothing to check against, too: [`verify_or`].

mod crypt;
mod scheme;
mod scram;
mod work;

use subtle::ConstantTimeEq;

use crate::{SecretBytes, Unavailable};

pub use scheme::{Scheme, choose, create, random_password};
pub use scram::{Mechanism, ScramSecret};
pub use work::Work;

/// Longest password that is looked at, in bytes. The C library refuses longer ones.
pub const LONGEST: usize = 511;

/// Does this password match the stored field?
///
/// # Errors
/// The C library or the memory of this host failed; never "wrong".
pub fn verify(stored: &[u8], password: &[u8]) -> Result<bool, Unavailable> {
    Ok(can_match(password) && attempt(stored, password)?.unwrap_or(false))
}

/// Does this password match the stored field of an account? Where there is no account (`None`) or its field
/// is of no use, the work of `nobody` is done instead: the answer "no" takes as long as for the accounts
/// whose work that is.
///
/// # Errors
/// As [`verify`].
pub fn verify_or(stored: Option<&[u8]>, password: &[u8], nobody: &Work) -> Result<bool, Unavailable> {
    verify_or_with(attempt, stored, password, nobody)
}

/// [`verify_or`] by way of any check of one field, which answers `None` when it had nothing to compute.
fn verify_or_with(
    mut attempt: impl FnMut(&[u8], &[u8]) -> Result<Option<bool>, Unavailable>,
    stored: Option<&[u8]>,
    password: &[u8],
    nobody: &Work,
) -> Result<bool, Unavailable> {
    if !can_match(password) {
        return Ok(false);
    }
    if let Some(stored) = stored
        && let Some(right) = attempt(stored, password)?
    {
        return Ok(right);
    }
    // The answer is known to be no.
    if attempt(nobody.field(), password)?.is_none() {
        attempt(Work::default().field(), password)?;
    }
    Ok(false)
}

/// The C library refuses the others, or would cut them short.
fn can_match(password: &[u8]) -> bool {
    password.len() <= LONGEST && !password.contains(&0)
}

/// Checks against one field; `None` when nothing can be computed for it, so that no password matches.
fn attempt(stored: &[u8], password: &[u8]) -> Result<Option<bool>, Unavailable> {
    let (secret, crypted) = split(stored);
    match (secret, Scheme::of(crypted)) {
        (Some(secret), _) if crypted.is_empty() => Ok(scram::verify(secret, password)),
        (_, None) => Ok(None),
        (_, Some(Scheme::Argon2id)) => scheme::verify_argon2(crypted, password),
        (_, Some(_)) => {
            let computed = crypt::crypt(password, crypted)?;
            Ok(computed.map(|c| c.expose().ct_eq(crypted).into()))
        }
    }
}

/// The SCRAM or CRAM secret of a stored field and its crypt part.
#[must_use]
pub fn split(stored: &[u8]) -> (Option<&[u8]>, &[u8]) {
    if !stored.starts_with(b"{") {
        return (None, stored);
    }
    // A SCRAM secret has commas of its own, so the crypt part is looked for from its end on.
    let end = scram::end_of_secret(stored);
    match stored.get(end) {
        None => (Some(stored), b""),
        Some(_) => (Some(&stored[..end]), &stored[end + 1..]),
    }
}

/// A crypt(3) hash of `password` under a complete setting (prefix, cost and salt).
fn hash(password: &[u8], setting: &[u8]) -> Result<SecretBytes, Unavailable> {
    crypt::crypt(password, setting)?
        .ok_or_else(|| Unavailable::new("crypt", "the C library does not know this password scheme"))
}

#[cfg(test)]
mod tests;
