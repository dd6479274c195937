//! SCRAM secrets (RFC 5802, RFC 7677) and clear text kept for CRAM.
//!
//! `{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY`, the last three in base 64; or the same followed by
//! `:HEX-SALTED-PASSWORD:CLEAR-TEXT`; or `{CRAM}CLEAR-TEXT`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::scheme::random;
use crate::{Invalid, SecretBytes, Unavailable};

/// The digest of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM-SHA-1
    Sha1,
    /// SCRAM-SHA-256
    Sha256,
    /// SCRAM-SHA-512
    Sha512,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::Sha1, Self::Sha256, Self::Sha512];
    /// Iterations of a new secret unless told otherwise; also the fewest.
    pub const ITERATIONS: u32 = 4096;
    /// More than this is not believed.
    const MOST: u32 = 10_000_000;

    /// Its name: `SCRAM-SHA-256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "SCRAM-SHA-1",
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// A mechanism by name.
    ///
    /// # Errors
    /// It is not one of them.
    pub fn parse(name: &[u8]) -> Result<Self, Invalid> {
        let upper = name.to_ascii_uppercase();
        Self::ALL.into_iter().find(|m| m.name().as_bytes() == upper).ok_or_else(|| {
            Invalid::new("mechanism", name, "expected SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512")
        })
    }

    const fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn salted_password(self, password: &[u8], salt: &[u8], iterations: u32) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(vec![0; self.length()]);
        match self {
            Self::Sha1 => pbkdf2::pbkdf2_hmac::<Sha1>(password, salt, iterations, &mut out),
            Self::Sha256 => pbkdf2::pbkdf2_hmac::<Sha256>(password, salt, iterations, &mut out),
            Self::Sha512 => pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut out),
        }
        out
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Zeroizing<Vec<u8>> {
        const ANY: &str = "invariant: HMAC takes keys of any length";
        Zeroizing::new(match self {
            Self::Sha1 => Hmac::<Sha1>::new_from_slice(key)
                .expect(ANY)
                .chain_update(message)
                .finalize()
                .into_bytes()
                .to_vec(),
            Self::Sha256 => Hmac::<Sha256>::new_from_slice(key)
                .expect(ANY)
                .chain_update(message)
                .finalize()
                .into_bytes()
                .to_vec(),
            Self::Sha512 => Hmac::<Sha512>::new_from_slice(key)
                .expect(ANY)
                .chain_update(message)
                .finalize()
                .into_bytes()
                .to_vec(),
        })
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => Sha1::digest(message).to_vec(),
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

/// What a server needs to know to take part in SCRAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScramSecret {
    /// The digest.
    pub mechanism: Mechanism,
    /// PBKDF2 iterations.
    pub iterations: u32,
    /// Salt, decoded.
    pub salt: Vec<u8>,
    /// H(ClientKey), decoded.
    pub stored_key: SecretBytes,
    /// ServerKey, decoded.
    pub server_key: SecretBytes,
    /// Clear text of the long form.
    pub clear: Option<SecretBytes>,
}

impl ScramSecret {
    /// Derives a secret; without `salt`, from 16 random bytes.
    ///
    /// # Errors
    /// No random bytes.
    pub fn create(
        mechanism: Mechanism,
        password: &[u8],
        iterations: u32,
        salt: Option<Vec<u8>>,
    ) -> Result<Self, Unavailable> {
        let salt = match salt {
            Some(salt) => salt,
            None => random::<16>()?.to_vec(),
        };
        let salted = mechanism.salted_password(password, &salt, iterations);
        let client_key = mechanism.hmac(&salted, b"Client Key");
        Ok(Self {
            mechanism,
            iterations,
            salt,
            stored_key: SecretBytes::new(mechanism.digest(&client_key)),
            server_key: SecretBytes::new(mechanism.hmac(&salted, b"Server Key").to_vec()),
            clear: None,
        })
    }

    /// Reads either form. `None` when it follows neither.
    #[must_use]
    pub fn parse(field: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(field).ok()?;
        let (name, rest) = text.strip_prefix('{')?.split_once('}')?;
        let mechanism = Mechanism::parse(name.as_bytes()).ok()?;
        let (keys, long) = match rest.split_once(':') {
            Some((keys, long)) => (keys, Some(long)),
            None => (rest, None),
        };
        let parts: Vec<&str> = keys.split(',').collect();
        let &[iterations, salt, stored, server] = parts.as_slice() else {
            return None;
        };
        let iterations = iterations.parse().ok().filter(|n| (1..=Mechanism::MOST).contains(n))?;
        let key = |text: &str| BASE64.decode(text).ok().filter(|k| k.len() == mechanism.length());
        let clear = match long.map(|l| l.split_once(':')) {
            None => None,
            Some(Some((hex, clear))) if is_hex(hex) => Some(clear.as_bytes().into()),
            Some(_) => return None,
        };
        Some(Self {
            mechanism,
            iterations,
            salt: BASE64.decode(salt).ok()?,
            stored_key: SecretBytes::new(key(stored)?),
            server_key: SecretBytes::new(key(server)?),
            clear,
        })
    }

    /// The short form, as the column `scram` holds it.
    #[must_use]
    pub fn encode(&self) -> SecretBytes {
        let text = format!(
            "{{{}}}{},{},{},{}",
            self.mechanism.name(),
            self.iterations,
            BASE64.encode(&self.salt),
            BASE64.encode(self.stored_key.expose()),
            BASE64.encode(self.server_key.expose())
        );
        SecretBytes::new(text.into_bytes())
    }

    /// The long form with the salted and the clear password, for mechanisms that need them.
    #[must_use]
    pub fn encode_with_clear(&self, password: &[u8]) -> SecretBytes {
        let salted = self.mechanism.salted_password(password, &self.salt, self.iterations);
        let hex: Zeroizing<String> = Zeroizing::new(salted.iter().map(|b| format!("{b:02x}")).collect());
        SecretBytes::new([self.encode().expose(), b":", hex.as_bytes(), b":", password].concat())
    }

    /// Is this the password? For mechanisms that send it in clear.
    #[must_use]
    pub fn verify(&self, password: &[u8]) -> bool {
        let salted = self.mechanism.salted_password(password, &self.salt, self.iterations);
        let client_key = self.mechanism.hmac(&salted, b"Client Key");
        self.mechanism.digest(&client_key).ct_eq(self.stored_key.expose()).into()
    }
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Does the password match a SCRAM secret or `{CRAM}` clear text? `None` when it is neither.
pub(super) fn verify(field: &[u8], password: &[u8]) -> Option<bool> {
    match field.strip_prefix(b"{CRAM}") {
        Some(b"") => None,
        Some(clear) => Some(clear.ct_eq(password).into()),
        None => ScramSecret::parse(field).map(|s| s.verify(password)),
    }
}

/// A field of nobody's with the cost of this one.
pub(super) fn of_nobody(field: &[u8]) -> Option<Vec<u8>> {
    match field.strip_prefix(b"{CRAM}") {
        Some(b"") => None,
        Some(_) => Some(b"{CRAM}nobody".to_vec()),
        None => ScramSecret::parse(field).map(|s| {
            let length = s.mechanism.length();
            let key = || SecretBytes::new(vec![0; length]);
            let nobody =
                ScramSecret { salt: vec![0; 16], stored_key: key(), server_key: key(), clear: None, ..s };
            nobody.encode().expose().to_vec()
        }),
    }
}

/// Where the secret at the start of a combined field ends: at the comma before the crypt part, or at
/// the end of the field.
pub(super) fn end_of_secret(field: &[u8]) -> usize {
    const ARGON2: &[u8] = b",$argon2id$";
    let mut commas = field.iter().enumerate().filter(|(_, b)| **b == b',').map(|(i, _)| i);
    let cram = field.starts_with(b"{CRAM}");
    let comma = if cram || field.contains(&b':') {
        // The clear text may hold commas, and an argon2 string does; no other hash.
        let argon2 = field.windows(ARGON2.len()).rposition(|w| w == ARGON2);
        argon2.or_else(|| commas.skip(if cram { 0 } else { 3 }).last())
    } else {
        commas.nth(3)
    };
    comma.unwrap_or(field.len())
}
