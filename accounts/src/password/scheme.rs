//! Schemes: which hash a field is, and making new ones.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{Invalid, SecretBytes, Unavailable};

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Traditional DES: 8 characters count. Only made when asked for.
    Des,
    /// `$1$`. Only made when asked for.
    Md5,
    /// `$5$`
    Sha256,
    /// `$6$`, the default.
    Sha512,
    /// `$y$` and `$gy$`
    Yescrypt,
    /// `$2a$`, `$2b$`, `$2y$`; checked, and made as `$2b$`.
    Bcrypt,
    /// `$7$`; checked, never made.
    Scrypt,
    /// `$argon2id$`
    Argon2id,
}

/// The 64 characters of salts.
const SALT: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl Scheme {
    /// The scheme of a stored field; `None` when it is empty, locked or unknown.
    #[must_use]
    pub fn of(stored: &[u8]) -> Option<Self> {
        const PREFIXES: [(&[u8], Scheme); 10] = [
            (b"$1$", Scheme::Md5),
            (b"$5$", Scheme::Sha256),
            (b"$6$", Scheme::Sha512),
            (b"$y$", Scheme::Yescrypt),
            (b"$gy$", Scheme::Yescrypt),
            (b"$2a$", Scheme::Bcrypt),
            (b"$2b$", Scheme::Bcrypt),
            (b"$2y$", Scheme::Bcrypt),
            (b"$7$", Scheme::Scrypt),
            (b"$argon2id$", Scheme::Argon2id),
        ];
        if let Some((_, scheme)) = PREFIXES.iter().find(|(p, _)| stored.starts_with(p)) {
            return Some(*scheme);
        }
        (stored.len() == 13 && stored.iter().all(|b| SALT.contains(b))).then_some(Self::Des)
    }

    /// A scheme by its name or number, as options, variables and `hash_method` files have it.
    ///
    /// # Errors
    /// It is not one of them.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        match text.to_ascii_uppercase().as_slice() {
            b"0" | b"DES" => Ok(Self::Des),
            b"1" | b"MD5" => Ok(Self::Md5),
            b"2" | b"SHA-256" => Ok(Self::Sha256),
            b"3" | b"SHA-512" => Ok(Self::Sha512),
            b"4" | b"YESCRYPT" => Ok(Self::Yescrypt),
            b"BCRYPT" => Ok(Self::Bcrypt),
            b"ARGON2ID" => Ok(Self::Argon2id),
            _ => Err(Invalid::new(
                "password scheme",
                text,
                "expected SHA-512, SHA-256, YESCRYPT, BCRYPT, ARGON2ID, MD5 or DES",
            )),
        }
    }
}

/// The scheme for a new password: the first that is given of option, variable PASSWORD_HASH,
/// `hash_method` of the domain and `hash_method` of the control directory; else SHA-512. Of a file, the
/// first word that is not in a `#` line counts.
///
/// # Errors
/// The first one given is not a scheme.
pub fn choose(
    option: Option<&[u8]>,
    variable: Option<&[u8]>,
    domain_file: Option<&[u8]>,
    control_file: Option<&[u8]>,
) -> Result<Scheme, Invalid> {
    fn word(file: &[u8]) -> &[u8] {
        let line = control::entries(file).next().unwrap_or_default();
        line.split(u8::is_ascii_whitespace).find(|w| !w.is_empty()).unwrap_or_default()
    }
    let given =
        option.or(variable.filter(|v| !v.is_empty())).or(domain_file.map(word)).or(control_file.map(word));
    given.map_or(Ok(Scheme::Sha512), Scheme::parse)
}

/// A new hash of `password`, with a random salt.
///
/// # Errors
/// No random bytes, no memory, or the C library does not know the scheme.
pub fn create(scheme: Scheme, password: &[u8]) -> Result<SecretBytes, Unavailable> {
    let setting = match scheme {
        Scheme::Des => salt(2)?,
        Scheme::Md5 => format!("$1${}", salt(8)?),
        Scheme::Sha256 => format!("$5${}", salt(16)?),
        Scheme::Sha512 => format!("$6${}", salt(16)?),
        Scheme::Yescrypt => format!("$y$j9T${}", yescrypt_salt()?),
        Scheme::Bcrypt => format!("$2b$12${}", bcrypt_salt()?),
        Scheme::Scrypt => return Err(Unavailable::new("password scheme", "scrypt is checked but not made")),
        Scheme::Argon2id => return create_argon2(password),
    };
    super::hash(password, setting.as_bytes())
}

/// A random password of `length` letters and digits.
///
/// # Errors
/// No random bytes.
pub fn random_password(length: usize) -> Result<SecretBytes, Unavailable> {
    // Without characters that are mistaken for others.
    const LETTERS: &[u8; 56] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut password = Vec::with_capacity(length);
    while password.len() < length {
        let bytes: [u8; 32] = random()?;
        // A byte past the last multiple of the alphabet would make its first letters likelier.
        let fair = bytes.iter().filter(|&&b| usize::from(b) < LETTERS.len() * 4);
        password.extend(fair.map(|&b| LETTERS[usize::from(b) % LETTERS.len()]).take(length - password.len()));
    }
    Ok(SecretBytes::new(password))
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], Unavailable> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Unavailable::new("random bytes", e))?;
    Ok(bytes)
}

/// Salt characters of 6 random bits each.
fn salt(length: usize) -> Result<String, Unavailable> {
    let bytes: [u8; 32] = random()?;
    Ok(bytes.iter().take(length).map(|b| char::from(SALT[usize::from(b & 63)])).collect())
}

/// 16 random bytes in the little-endian base 64 of crypt: 21 full characters and one of 2 bits.
fn yescrypt_salt() -> Result<String, Unavailable> {
    let bytes: [u8; 1] = random()?;
    Ok(salt(21)? + &char::from(SALT[usize::from(bytes[0] & 3)]).to_string())
}

/// 16 random bytes in bcrypt's base 64: 21 full characters, and one whose low four bits are 0.
fn bcrypt_salt() -> Result<String, Unavailable> {
    const LAST: [char; 4] = ['.', 'O', 'e', 'u'];
    let bytes: [u8; 1] = random()?;
    Ok(salt(21)? + &LAST[usize::from(bytes[0] & 3)].to_string())
}

fn create_argon2(password: &[u8]) -> Result<SecretBytes, Unavailable> {
    let salt: [u8; 16] = random()?;
    let params = Params::DEFAULT;
    let mut output = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
        .hash_password_into(password, &salt, &mut *output)
        .map_err(|e| Unavailable::new("argon2", e))?;
    Ok(SecretBytes::new(argon2_field(&params, &salt, &*output)))
}

fn argon2_field(params: &Params, salt: &[u8], hash: &[u8]) -> Vec<u8> {
    let text = format!(
        "$argon2id$v=19$m={},t={},p={}${}${}",
        params.m_cost(),
        params.t_cost(),
        params.p_cost(),
        BASE64.encode(salt),
        BASE64.encode(hash)
    );
    text.into_bytes()
}

/// A field of nobody's with the cost of this one.
pub(super) fn argon2_of_nobody(stored: &[u8]) -> Option<Vec<u8>> {
    let (params, _, hash) = read_argon2(stored)?;
    Some(argon2_field(&params, &[0; 16], &vec![0; hash.len()]))
}

/// Cost above which a stored field is not believed: 1 GiB, 64 passes, 64 lanes.
const ARGON2_MOST: [u32; 3] = [1 << 20, 64, 64];

/// `$argon2id$v=19$m=M,t=T,p=P$SALT$HASH`. `None` when the field does not follow this.
pub(super) fn verify_argon2(stored: &[u8], password: &[u8]) -> Result<Option<bool>, Unavailable> {
    let Some((params, salt, hash)) = read_argon2(stored) else {
        return Ok(None);
    };
    let mut output = Zeroizing::new(vec![0u8; hash.len()]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    match argon2.hash_password_into(password, &salt, &mut output) {
        Ok(()) => Ok(Some(output.ct_eq(&hash).into())),
        Err(argon2::Error::OutOfMemory) => Err(Unavailable::new("argon2", "out of memory")),
        Err(_) => Ok(None),
    }
}

fn read_argon2(stored: &[u8]) -> Option<(Params, Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(stored).ok()?.strip_prefix("$argon2id$v=19$")?;
    let mut parts = text.split('$');
    let (costs, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let mut fields =
        costs.split(',').zip(["m=", "t=", "p="]).map(|(f, name)| f.strip_prefix(name)?.parse().ok());
    let costs: [Option<u32>; 3] = std::array::from_fn(|_| fields.next().flatten());
    let [m, t, p] = [costs[0]?, costs[1]?, costs[2]?];
    if [m, t, p].iter().zip(ARGON2_MOST).any(|(&cost, most)| cost > most) {
        return None;
    }
    let (salt, hash) = (BASE64.decode(salt).ok()?, BASE64.decode(hash).ok()?);
    if !(16..=64).contains(&hash.len()) {
        return None;
    }
    Some((Params::new(m, t, p, Some(hash.len())).ok()?, salt, hash))
}
