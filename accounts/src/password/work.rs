//! What checking a password costs, without an account: so that time does not tell which accounts exist.

use super::{Scheme, scheme, scram, split};

/// The work of checking a password against a stored field, for nobody: scheme and cost are those of the
/// field, the salt is no account's, and there is no hash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Work(pub(super) Vec<u8>);

/// Salt of nobody: 22 characters that every scheme takes.
const SALT: &str = "nobodynobodynobodynob.";
/// SHA-512 of the default cost.
const DEFAULT: &str = "$6$nobodynobodynobo$";

impl Default for Work {
    /// The work of a scheme that new accounts have unless told otherwise.
    fn default() -> Self {
        Self(DEFAULT.as_bytes().to_vec())
    }
}

impl Work {
    /// The work of a stored field; `None` when no password is ever hashed for it (it is empty, locked or of no
    /// known scheme) or it does not follow its scheme.
    #[must_use]
    pub fn of(stored: &[u8]) -> Option<Self> {
        let (secret, crypted) = split(stored);
        let field = match (secret, Scheme::of(crypted)) {
            (Some(secret), _) if crypted.is_empty() => scram::of_nobody(secret)?,
            (_, Some(Scheme::Argon2id)) => scheme::argon2_of_nobody(crypted)?,
            (_, known) => of_crypt(known?, std::str::from_utf8(crypted).ok()?)?,
        };
        Some(Self(field))
    }

    /// As a stored field.
    pub(super) fn field(&self) -> &[u8] {
        &self.0
    }
}

/// A setting of crypt(3) with the same cost.
fn of_crypt(scheme: Scheme, stored: &str) -> Option<Vec<u8>> {
    let setting = match scheme {
        Scheme::Des => "nobodynobody.".to_owned(),
        Scheme::Md5 => format!("$1${}$", SALT.get(..8)?),
        Scheme::Sha256 | Scheme::Sha512 => {
            let (prefix, rest) = stored.split_at_checked(3)?;
            let rounds = rest.split('$').next().filter(|r| r.starts_with("rounds="));
            let rounds = rounds.map_or_else(String::new, |r| format!("{r}$"));
            format!("{prefix}{rounds}{}$", SALT.get(..16)?)
        }
        Scheme::Yescrypt => {
            let mut parts = stored.splitn(4, '$').skip(1);
            format!("${}${}${SALT}$", parts.next()?, parts.next()?)
        }
        Scheme::Bcrypt => format!("{}{SALT}", stored.get(..7)?),
        // Eleven characters of cost.
        Scheme::Scrypt => format!("{}{}$", stored.get(..14)?, SALT.get(..16)?),
        Scheme::Argon2id => return None,
    };
    Some(setting.into_bytes())
}
