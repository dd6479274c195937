//! The module's arguments, as they stand in a pam.d file.

use std::time::Duration;

/// How a password that an earlier module asked for is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstPass {
    /// Use it when it is there, else ask. A wrong one is final.
    #[default]
    IfThere,
    /// `try_first_pass`: when it is wrong, ask once more.
    Try,
    /// `use_first_pass`: never ask.
    Only,
}

/// What the arguments say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arguments {
    /// `use_first_pass`, `try_first_pass`.
    pub first_pass: FirstPass,
    /// `nullok`: an empty password is worth asking the daemon about.
    pub nullok: bool,
    /// `nodelay`: do not ask libpam to wait after a failure.
    pub nodelay: bool,
    /// `-d` or `debug`: log each outcome.
    pub debug: bool,
    /// `-i NAME` or `service=NAME`: the service asked for, instead of the PAM service's name.
    pub service: Option<Vec<u8>>,
    /// `domain=NAME`: the domain of login names that have none.
    pub domain: Option<Vec<u8>>,
    /// `socket=PATH`: where the daemon listens.
    pub socket: Option<Vec<u8>>,
    /// `timeout=MILLISECONDS`: how long one question may take in all.
    pub timeout: Option<Duration>,
}

/// An argument that cannot be honoured; the text goes to the system log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);

/// Options of the original that choose where the hash is fetched from, and their parameters.
const SOURCE_OPTIONS: &[u8] = b"mcsupDHP";

impl Arguments {
    /// Reads the arguments. The first one may be a stand-in for a program name (`pam-multi`, `args`).
    ///
    /// # Errors
    /// The first argument that is unknown, incomplete or not supported.
    pub fn read(given: &[&[u8]]) -> Result<Self, Refused> {
        let mut all = Self::default();
        let mut rest = given.iter().copied().peekable();
        rest.next_if(|a| matches!(*a, b"pam-multi" | b"pam_multi" | b"args"));
        while let Some(argument) = rest.next() {
            match argument {
                b"use_first_pass" => all.first_pass = FirstPass::Only,
                b"try_first_pass" => all.first_pass = FirstPass::Try,
                b"nullok" => all.nullok = true,
                b"nodelay" => all.nodelay = true,
                b"debug" | b"-d" => all.debug = true,
                [b'-', b'i', joined @ ..] => {
                    let value = if joined.is_empty() { rest.next() } else { Some(joined) };
                    all.service = Some(named("-i", value)?);
                }
                [b'-', letter, ..] if SOURCE_OPTIONS.contains(letter) => {
                    return Err(Refused(format!(
                        "option -{} is not supported: passwords are checked by inlookup only",
                        char::from(*letter)
                    )));
                }
                _ => all.key_value(argument)?,
            }
        }
        Ok(all)
    }

    fn key_value(&mut self, argument: &[u8]) -> Result<(), Refused> {
        let mut parts = argument.splitn(2, |&b| b == b'=');
        let key = parts.next().unwrap_or_default();
        let value = parts.next();
        match key {
            b"service" => self.service = Some(named("service", value)?),
            b"domain" => self.domain = Some(named("domain", value)?.to_ascii_lowercase()),
            b"socket" => {
                let path = named("socket", value)?;
                if path.first() != Some(&b'/') {
                    return Err(Refused("socket= needs an absolute path".to_owned()));
                }
                self.socket = Some(path);
            }
            b"timeout" => {
                let text = named("timeout", value)?;
                let milliseconds = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
                let Some(milliseconds @ 100..=30_000) = milliseconds else {
                    return Err(Refused("timeout= needs milliseconds from 100 to 30000".to_owned()));
                };
                self.timeout = Some(Duration::from_millis(milliseconds));
            }
            _ => return Err(Refused(format!("unknown argument {}", argument.escape_ascii()))),
        }
        Ok(())
    }
}

fn named(key: &str, value: Option<&[u8]>) -> Result<Vec<u8>, Refused> {
    match value {
        Some(value) if !value.is_empty() => Ok(value.to_vec()),
        _ => Err(Refused(format!("{key} needs a value"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Arguments, Refused> {
        let words: Vec<&[u8]> = text.split_ascii_whitespace().map(str::as_bytes).collect();
        Arguments::read(&words)
    }

    #[test]
    fn the_stand_in_for_a_program_name_may_be_there_or_not() {
        let plain = read("-i imap use_first_pass").unwrap();
        for first in ["pam-multi", "pam_multi", "args"] {
            assert_eq!(read(&format!("{first} -i imap use_first_pass")).unwrap(), plain);
        }
        assert_eq!(plain.service.as_deref(), Some(&b"imap"[..]));
        assert_eq!(plain.first_pass, FirstPass::Only);
        assert_eq!(read("-iimap use_first_pass").unwrap(), plain);
        assert_eq!(read("").unwrap(), Arguments::default());
    }

    #[test]
    fn every_key_is_read() {
        let all =
            read("try_first_pass nullok nodelay debug service=pop3 domain=Example.COM socket=/s timeout=250");
        assert_eq!(
            all.unwrap(),
            Arguments {
                first_pass: FirstPass::Try,
                nullok: true,
                nodelay: true,
                debug: true,
                service: Some(b"pop3".to_vec()),
                domain: Some(b"example.com".to_vec()),
                socket: Some(b"/s".to_vec()),
                timeout: Some(Duration::from_millis(250)),
            }
        );
    }

    #[test]
    fn hash_sources_of_the_original_are_refused_by_name() {
        for text in ["pam-multi -s /usr/lib/iauth.so", "-m select", "-c true", "-i imap -uindimail"] {
            let Refused(why) = read(text).unwrap_err();
            assert!(why.contains("not supported"), "{text}: {why}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("-i", "-i needs a value"),
            ("service=", "service needs a value"),
            ("socket=run/x", "socket= needs an absolute path"),
            ("timeout=5", "timeout= needs milliseconds"),
            ("timeout=x", "timeout= needs milliseconds"),
            ("shiny", "unknown argument shiny"),
            ("-x", "unknown argument -x"),
        ] {
            let Refused(why) = read(text).unwrap_err();
            assert!(why.starts_with(expected), "{text}: {why}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(words: Vec<Vec<u8>>) {
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let _ = Arguments::read(&words);
        }
    }
}
