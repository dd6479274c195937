//! Where a new password comes from, and how it is stored.

use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;

use accounts::password::{self, LONGEST, Mechanism, Scheme, ScramSecret};
use accounts::{Invalid, SecretBytes};
use base64::Engine as _;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use crate::context::{Context, Failure, print};

/// The options of every command that sets a password, after its own.
macro_rules! password_options {
    ($($own:expr),* $(,)?) => {
        &[
            $($own,)*
            program::OptionSpec::long_value("password-fd", "n", "read the password from the first line of descriptor n"),
            program::OptionSpec::value('r', "length", "make a random password of this length and print it"),
            program::OptionSpec::value('h', "scheme", "SHA-512, SHA-256, YESCRYPT, BCRYPT, ARGON2ID, MD5 or DES (default: PASSWORD_HASH, hash_method of the domain, control file hash_method, SHA-512)"),
            program::OptionSpec::flag('e', "the password is hashed already: store it as it is"),
            program::OptionSpec::value('m', "mechanism", "keep a secret for SCRAM-SHA-1, SCRAM-SHA-256 or SCRAM-SHA-512 too, or CRAM: the clear text"),
            program::OptionSpec::flag('C', "keep the clear text too, for CRAM mechanisms"),
            program::OptionSpec::value('S', "salt", "salt of the SCRAM secret in base 64 (default: 16 random bytes)"),
            program::OptionSpec::value('I', "iterations", "iterations of the SCRAM secret (default and least 4096)"),
            program::OptionSpec::flag('v', "tell what is done"),
        ]
    };
}
pub(crate) use password_options;

/// What goes into the columns.
pub(crate) struct New {
    /// `pw_passwd`
    pub(crate) hash: SecretBytes,
    /// `scram`
    pub(crate) scram: Option<SecretBytes>,
    /// A random password, to be printed once the change is made.
    random: Option<SecretBytes>,
}

impl New {
    /// Prints the random password, if it was one.
    pub(crate) fn show(&self) {
        if let Some(random) = &self.random {
            print(&format!("Password is {}\n", String::from_utf8_lossy(random.expose())));
        }
    }
}

/// Reads the password (random, descriptor, operand at `index`, or prompt, in this order) and makes what is to be
/// stored. `domain_method` is the file `hash_method` of the domain.
pub(crate) fn new(
    context: &Context<'_>,
    index: usize,
    prompt: &str,
    domain_method: Option<&[u8]>,
) -> Result<New, Failure> {
    let random = context.number("r")?;
    let verbatim = context.parsed.flag("e");
    // Settings first: nobody should type a password for a command that then refuses its options.
    let scheme = scheme(context, domain_method)?;
    let scram = Scram::read(context)?;
    if verbatim && (random.is_some() || scram.is_some()) {
        return Err(Failure::refused(
            "option -e",
            "it cannot be used with -r, -m and -C, which need the clear password",
        ));
    }
    let clear = match random {
        Some(length @ 8..=128) => password::random_password(length as usize)?,
        Some(_) => return Err(Failure::refused("option -r", "expected a length from 8 to 128")),
        None => obtain(context, index, prompt)?,
    };
    if verbatim && context.option("h").is_none() {
        if Scheme::of(clear.expose()).is_none() {
            return Err(Failure::refused("option -e", "this is not a password hash of a known scheme"));
        }
        return Ok(New { hash: clear, scram: None, random: None });
    }
    check(clear.expose())?;
    let hash = password::create(scheme, clear.expose())?;
    let scram = scram.map(|s| s.make(clear.expose())).transpose()?;
    Ok(New { hash, scram, random: random.map(|_| clear) })
}

fn scheme(context: &Context<'_>, domain_method: Option<&[u8]>) -> Result<Scheme, Failure> {
    let (variable, control) =
        (context.settings.password_hash.as_deref(), context.settings.hash_method.as_deref());
    Ok(password::choose(context.option("h"), variable, domain_method, control)?)
}

/// What is asked for in the `scram` column.
struct Scram {
    mechanism: Option<Mechanism>,
    clear: bool,
    salt: Option<Vec<u8>>,
    iterations: u32,
}

impl Scram {
    fn read(context: &Context<'_>) -> Result<Option<Self>, Failure> {
        let clear = context.parsed.flag("C");
        let (mechanism, clear) = match context.option("m") {
            None => (None, clear),
            Some(name) if name.eq_ignore_ascii_case(b"CRAM") => (None, true),
            Some(name) => (Some(Mechanism::parse(name)?), clear),
        };
        if mechanism.is_none() && !clear {
            return Ok(None);
        }
        let salt = match context.option("S") {
            None => None,
            Some(text) => Some(
                base64::engine::general_purpose::STANDARD
                    .decode(text)
                    .ok()
                    .filter(|s| s.len() >= 8)
                    .ok_or_else(|| Failure::refused("option -S", "expected at least 8 bytes in base 64"))?,
            ),
        };
        let iterations = context.number("I")?.unwrap_or(Mechanism::ITERATIONS);
        if !(Mechanism::ITERATIONS..=1_000_000).contains(&iterations) {
            return Err(Failure::refused("option -I", "expected a number from 4096 to 1000000"));
        }
        Ok(Some(Self { mechanism, clear, salt, iterations }))
    }

    fn make(self, password: &[u8]) -> Result<SecretBytes, Failure> {
        let Some(mechanism) = self.mechanism else {
            return Ok(SecretBytes::new([b"{CRAM}", password].concat()));
        };
        let secret = ScramSecret::create(mechanism, password, self.iterations, self.salt)?;
        Ok(if self.clear { secret.encode_with_clear(password) } else { secret.encode() })
    }
}

fn check(password: &[u8]) -> Result<(), Failure> {
    let bad = |why| Err(Failure::from(Invalid::new("password", b"(not shown)", why)));
    if password.is_empty() {
        return bad("it is empty");
    }
    if password.len() > LONGEST {
        return bad("it is longer than 511 bytes");
    }
    if password.iter().any(|&b| b == b':' || b.is_ascii_control()) {
        return bad("colons and control characters are refused: text records cannot carry them");
    }
    Ok(())
}

fn obtain(context: &Context<'_>, index: usize, prompt: &str) -> Result<SecretBytes, Failure> {
    if let Some(number) = context.number("password-fd")? {
        let refused = |why: &dyn std::fmt::Display| Failure::refused("option --password-fd", why);
        let number = i32::try_from(number).map_err(|e| refused(&e))?;
        let fd = unix::fd::inherited(number)
            .ok_or_else(|| refused(&format!("descriptor {number} is not open")))?;
        return first_line(&mut std::fs::File::from(fd)).map_err(|e| refused(&e));
    }
    if context.parsed.operands.len() > index {
        return Ok(context.operand(index).into());
    }
    ask_twice(prompt)
}

/// The first line, without its end.
fn first_line(source: &mut impl io::Read) -> io::Result<SecretBytes> {
    let bytes = SecretBytes::new(unix::fd::read_to_end_limited(source, 4096)?);
    let line = bytes.expose().split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(line.strip_suffix(b"\r").unwrap_or(line).into())
}

/// Asks on the terminal, twice, without echo.
fn ask_twice(prompt: &str) -> Result<SecretBytes, Failure> {
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Failure::refused("no password", "there is no terminal to ask on; use --password-fd or -r")
    })?;
    let first = ask(&terminal, &format!("New password for {prompt}: "))?;
    let second = ask(&terminal, "Retype new password: ")?;
    if first != second {
        return Err(Failure::refused("password", "the two entries differ"));
    }
    Ok(first)
}

fn ask(terminal: &std::fs::File, prompt: &str) -> Result<SecretBytes, Failure> {
    let fail = |e: io::Error| Failure::step("/dev/tty", e);
    let before = tcgetattr(terminal.as_fd()).map_err(|e| fail(e.into()))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    silent.local_flags.insert(LocalFlags::ECHONL);
    // Silent before the prompt: whoever answers it at once is not shown either.
    tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &silent).map_err(|e| fail(e.into()))?;
    let mut line = zeroize::Zeroizing::new(Vec::with_capacity(LONGEST + 2));
    let mut out = terminal;
    let read = out
        .write_all(prompt.as_bytes())
        .and_then(|()| io::BufReader::new(terminal).read_until(b'\n', &mut line));
    tcsetattr(terminal.as_fd(), SetArg::TCSAFLUSH, &before).map_err(|e| fail(e.into()))?;
    read.map_err(fail)?;
    Ok(control::trimmed(&line).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_counts() {
        let line = |text: &[u8]| first_line(&mut io::Cursor::new(text.to_vec())).unwrap();
        assert_eq!(line(b"a b \nmore\n").expose(), b"a b ");
        assert_eq!(line(b"x\r\n").expose(), b"x");
        assert_eq!(line(b"").expose(), b"");
    }

    #[test]
    fn passwords_that_records_cannot_carry_are_refused_and_not_shown() {
        for bad in [&b""[..], b"se:cret", b"se\ncret", &[b'x'; 512]] {
            let error = check(bad).unwrap_err().to_string();
            assert!(!error.contains("cret"), "{error}");
        }
        assert!(check(b"correct horse, battery staple").is_ok());
    }
}
