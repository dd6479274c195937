//! The account store as `--store` names it.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};

/// Which store an instance uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// The default: a file of the instance.
    Sqlite,
    /// A MySQL or MariaDB server.
    Mysql(Mysql),
}

/// How to reach a MySQL or MariaDB server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mysql {
    /// User name.
    pub user: String,
    /// Where the password comes from.
    pub password: Password,
    /// Host name or address.
    pub host: String,
    /// Port number or path of a Unix socket.
    pub place: String,
    /// Name of the database.
    pub database: String,
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Password {
    /// There is none.
    Empty,
    /// The first line of this file.
    File(PathBuf),
    /// It stood in the URL, where `ps` shows it to everybody; only for servers made for a trial.
    Given(String),
}

impl Password {
    /// The password itself.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<String> {
        match self {
            Self::Empty => Ok(String::new()),
            Self::Given(text) => Ok(text.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
                Ok(text.lines().next().unwrap_or_default().to_owned())
            }
        }
    }
}

impl FromStr for Store {
    type Err = anyhow::Error;

    /// `sqlite`, or `mysql://USER[:PASSWORD-FILE]@HOST[:PORT]/DATABASE[?socket=PATH]`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "sqlite" {
            return Ok(Self::Sqlite);
        }
        let rest = text
            .strip_prefix("mysql://")
            .context("expected sqlite or mysql://USER[:PASSWORD-FILE]@HOST[:PORT]/DATABASE[?socket=PATH]")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (login, rest) = rest.rsplit_once('@').context("no USER@ before the host")?;
        let (address, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let (host, port) = address.split_once(':').unwrap_or((address, "3306"));
        let mut mysql = Mysql {
            user: decoded(user)?,
            password: match decoded(password)?.as_str() {
                "" => Password::Empty,
                path if path.starts_with('/') => Password::File(path.into()),
                text => Password::Given(text.to_owned()),
            },
            host: if host.is_empty() { "localhost".into() } else { host.to_owned() },
            place: port.to_owned(),
            database: if database.is_empty() { "indimail".into() } else { decoded(database)? },
        };
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            match pair.split_once('=') {
                Some(("socket", path)) => mysql.place = decoded(path)?,
                Some(("password-file", path)) => mysql.password = Password::File(decoded(path)?.into()),
                _ => anyhow::bail!("{pair}: unknown, expected socket=PATH or password-file=PATH"),
            }
        }
        let port_fits = mysql.place.parse::<u16>().is_ok_and(|p| p > 0) || mysql.place.starts_with('/');
        ensure!(port_fits, "{}: expected a port number or socket=PATH", mysql.place);
        ensure!(!mysql.user.is_empty(), "the user name is empty");
        Ok(Self::Mysql(mysql))
    }
}

impl Store {
    /// What to say when the password itself was given on the command line. It is accepted all the same, because
    /// a private instance is for a try; it is never handed on that way.
    #[must_use]
    pub fn exposed(&self) -> Option<&'static str> {
        match self {
            Self::Mysql(Mysql { password: Password::Given(_), .. }) => {
                Some("note: the password in --store is visible to everybody in ps; use a password file")
            }
            Self::Sqlite | Self::Mysql(_) => None,
        }
    }
}

impl std::fmt::Display for Store {
    /// As it was given, without a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite => f.write_str("sqlite"),
            Self::Mysql(m) if m.place.starts_with('/') => {
                write!(f, "mysql://{}@{}/{}?socket={}", m.user, m.host, m.database, m.place)
            }
            Self::Mysql(m) => write!(f, "mysql://{}@{}:{}/{}", m.user, m.host, m.place, m.database),
        }
    }
}

/// Percent-decoding as in URLs.
fn decoded(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = rest.get(..2).and_then(|d| std::str::from_utf8(d).ok());
            let byte = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
            bytes.push(byte.with_context(|| format!("{text}: % must be followed by two digits"))?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).with_context(|| format!("{text}: not text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mysql(text: &str) -> Mysql {
        match text.parse() {
            Ok(Store::Mysql(m)) => m,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn urls_are_understood() {
        let m = mysql("mysql://root@localhost:3307/mail");
        assert_eq!((m.user.as_str(), m.place.as_str(), m.database.as_str()), ("root", "3307", "mail"));
        let m = mysql("mysql://u:%2Fetc%2Fpw@h/d?socket=/run/x.sock");
        assert_eq!((m.password, m.place.as_str()), (Password::File("/etc/pw".into()), "/run/x.sock"));
        let m = mysql("mysql://u:p%40w@");
        assert_eq!((m.password, m.database.as_str()), (Password::Given("p@w".into()), "indimail"));
    }

    #[test]
    fn shown_without_password_and_read_back() {
        for text in ["sqlite", "mysql://u@h:3306/d", "mysql://u@h/d?socket=/s"] {
            assert_eq!(text.parse::<Store>().unwrap().to_string(), text);
        }
        assert_eq!("mysql://u:secret@h/d".parse::<Store>().unwrap().to_string(), "mysql://u@h:3306/d");
    }

    #[test]
    fn a_password_on_the_command_line_is_accepted_with_a_note() {
        let note = |text: &str| text.parse::<Store>().unwrap().exposed();
        assert!(
            note("mysql://u:secret@h/d")
                .is_some_and(|n| n.contains("password file") && !n.contains("secret"))
        );
        for quiet in
            ["sqlite", "mysql://u@h/d", "mysql://u:%2Fetc%2Fpw@h/d", "mysql://u@h/d?password-file=/p"]
        {
            assert_eq!(note(quiet), None, "{quiet}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for bad in
            ["", "postgres://x", "mysql://h/d", "mysql://u@h:x/d", "mysql://u@h/d?ssl", "mysql://u:%4@h"]
        {
            assert!(bad.parse::<Store>().is_err(), "{bad}");
        }
    }
}
