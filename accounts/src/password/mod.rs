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
//! Work done for a wrong password is done for an unknown user too: [`verify_nobody`].

mod crypt;
mod scheme;
mod scram;

use subtle::ConstantTimeEq;

use crate::{SecretBytes, Unavailable};

pub use scheme::{Scheme, choose, create, random_password};
pub use scram::{Mechanism, ScramSecret};

/// Longest password that is looked at, in bytes. The C library refuses longer ones.
pub const LONGEST: usize = 511;

/// Does this password match the stored field?
///
/// # Errors
/// The C library or the memory of this host failed; never "wrong".
pub fn verify(stored: &[u8], password: &[u8]) -> Result<bool, Unavailable> {
    if password.len() > LONGEST || password.contains(&0) {
        return Ok(false);
    }
    let (scram, crypted) = split(stored);
    match scram {
        Some(secret) if crypted.is_empty() => Ok(scram::verify(secret, password)),
        _ => verify_crypted(crypted, password),
    }
}

/// Does the work of a [`verify`] that fails: for a user that does not exist or whose field is locked.
pub fn verify_nobody(password: &[u8]) {
    // SHA-512 of the default cost; the salt is of no account's.
    const NOBODY: &[u8] = b"$6$rounds=5000$nobodynobodynobo$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let password = &password[..password.len().min(LONGEST)];
    // The answer is known to be no; only the time counts.
    let _ = verify_crypted(NOBODY, password);
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

fn verify_crypted(stored: &[u8], password: &[u8]) -> Result<bool, Unavailable> {
    match Scheme::of(stored) {
        // Locked and unknown fields cost what a wrong password costs.
        None => {
            verify_nobody(password);
            Ok(false)
        }
        Some(Scheme::Argon2id) => scheme::verify_argon2(stored, password),
        Some(_) => {
            let Some(computed) = crypt::crypt(password, stored)? else {
                return Ok(false);
            };
            Ok(computed.expose().ct_eq(stored).into())
        }
    }
}

/// A crypt(3) hash of `password` under a complete setting (prefix, cost and salt).
fn hash(password: &[u8], setting: &[u8]) -> Result<SecretBytes, Unavailable> {
    crypt::crypt(password, setting)?
        .ok_or_else(|| Unavailable::new("crypt", "the C library does not know this password scheme"))
}

#[cfg(test)]
mod tests;
