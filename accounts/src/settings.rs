//! Which store, and where the domains are.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::Directory;

use crate::{SecretBytes, Unavailable};

/// Everything [`crate::Accounts`] needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The store of accounts.
    pub store: StoreSettings,
    /// Directory of `assign` and `cdb`.
    pub assign_dir: PathBuf,
}

impl Settings {
    /// Reads the control files that choose the store.
    ///
    /// # Errors
    /// As [`StoreSettings::load`].
    pub fn load(control: &Directory, domaindir: &Path, assign_dir: &Path) -> Result<Self, Unavailable> {
        Ok(Self { store: StoreSettings::load(control, domaindir)?, assign_dir: assign_dir.to_owned() })
    }
}

/// Which store, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Which one.
    pub kind: StoreKind,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Connections to a server at a time, of all stores of one [`crate::StorePool`]; 1 unless set. A daemon
    /// sets the number of its workers, each of which keeps one.
    pub connections: usize,
}

/// The kinds of stores.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// One SQLite file.
    Sqlite(PathBuf),
    /// A MySQL or MariaDB server.
    MySql(MySqlServer),
}

/// Longest waits for a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection to a server, and before that for its turn in a pool.
    pub connect: Duration,
    /// For an answer, or for another process's write to an SQLite file to end.
    pub read: Duration,
    /// For sending a request.
    pub write: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            read: Duration::from_secs(10),
            write: Duration::from_secs(10),
        }
    }
}

/// How to reach the server.
#[derive(Debug, Clone)]
pub struct MySqlServer {
    /// The line of `host.mysql`.
    pub host: HostMysql,
    /// Database.
    pub database: String,
    /// Certificate authority in PEM that the server's certificate is also checked against.
    pub authority: Option<PathBuf>,
}

impl StoreSettings {
    /// Reads the control file `accountstore`: `sqlite:/path`, `mysql:` or `mysql:DATABASE`. Without it,
    /// MySQL when `host.mysql` exists, else `accounts.sqlite` in `domaindir`.
    ///
    /// # Errors
    /// A file cannot be read, holds something else, or `host.mysql` is readable for everybody.
    pub fn load(control: &Directory, domaindir: &Path) -> Result<Self, Unavailable> {
        let unreadable = |e: control::Error| Unavailable::new("account store", e);
        let at = control.file("accountstore");
        let host_file = control.file("host.mysql");
        let choice = control.line("accountstore").map_err(unreadable)?;
        let wrong = |why: &str| Unavailable::new(format!("{}:1", at.display()), why);
        let database = match choice.as_deref() {
            None if present(&host_file)? => "indimail".to_owned(),
            None => return Ok(Self::sqlite(domaindir.join("accounts.sqlite"))),
            Some(text) => match text.strip_prefix(b"mysql:") {
                Some(b"") => "indimail".to_owned(),
                Some(name) if name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_') => {
                    String::from_utf8_lossy(name).into_owned()
                }
                Some(_) => return Err(wrong("a database name has letters, digits and _ only")),
                None => {
                    return text
                        .strip_prefix(b"sqlite:")
                        .and_then(|p| std::str::from_utf8(p).ok())
                        .filter(|p| p.starts_with('/'))
                        .map(Self::sqlite)
                        .ok_or_else(|| wrong("expected sqlite:/path, mysql: or mysql:DATABASE"));
                }
            },
        };
        let line = secret_line(&host_file)?;
        let host = HostMysql::parse(line.expose())
            .map_err(|why| Unavailable::new(format!("{}:1", host_file.display()), why))?;
        let authority = control.line("mysql.ca").map_err(unreadable)?;
        let authority =
            authority.map(|p| PathBuf::from(std::ffi::OsString::from(String::from_utf8_lossy(&p).as_ref())));
        Ok(Self {
            kind: StoreKind::MySql(MySqlServer { host, database, authority }),
            timeouts: Timeouts::default(),
            connections: 1,
        })
    }

    /// An SQLite file.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self { kind: StoreKind::Sqlite(path.into()), timeouts: Timeouts::default(), connections: 1 }
    }

    /// Names the store for messages: no secret in it.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            StoreKind::Sqlite(path) => format!("sqlite:{}", path.display()),
            StoreKind::MySql(server) => format!("mysql:{}@{}", server.database, server.host.place()),
        }
    }
}

fn present(path: &Path) -> Result<bool, Unavailable> {
    path.try_exists().map_err(|e| Unavailable::new(path.display(), e))
}

/// The first line of a file that holds a password; everybody's file is refused.
fn secret_line(path: &Path) -> Result<SecretBytes, Unavailable> {
    let fail = |e: io::Error| Unavailable::new(path.display(), e);
    let mode = std::fs::metadata(path).map_err(fail)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(Unavailable::new(
            path.display(),
            format!(
                "mode {:04o} lets everybody read the database password; set it to 0640, owner root or indimail, group qmail",
                mode & 0o7777
            ),
        ));
    }
    let bytes = SecretBytes::new(std::fs::read(path).map_err(fail)?);
    let line = bytes.expose().split(|&b| b == b'\n').next().unwrap_or_default();
    Ok(control::trimmed(line).into())
}

/// The line of `host.mysql`: `host:user:password:socket_or_port[:ssl|nossl]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostMysql {
    /// Host name or address.
    pub host: String,
    /// User.
    pub user: String,
    /// Password; empty only over a socket, where the server knows the process's user.
    pub password: SecretBytes,
    /// Socket, or else TCP to `port`.
    pub socket: Option<String>,
    /// Port for TCP.
    pub port: u16,
    /// Is TLS asked for?
    pub tls: bool,
}

impl HostMysql {
    /// Reads the line. Missing host, user and port are `localhost`, `indimail` and 3306; a value that
    /// starts with `/` or `.` is a socket. There is no default password. What stands between the user
    /// and the last fields is the password, so that it may hold colons when the port is given; an
    /// IPv6 address stands in brackets.
    ///
    /// # Errors
    /// What is wrong with it. The text never shows the password.
    pub fn parse(line: &[u8]) -> Result<Self, &'static str> {
        const SYNTAX: &str = "expected host:user:password:socket_or_port[:ssl|nossl]";
        let line = std::str::from_utf8(line).map_err(|_| SYNTAX)?;
        if line.is_empty() {
            return Err("empty; expected host:user:password:socket_or_port[:ssl|nossl]");
        }
        let (host, rest) = match line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            Some((host, rest)) => (host, rest.strip_prefix(':').unwrap_or(rest)),
            None => line.split_once(':').unwrap_or((line, "")),
        };
        let (user, rest) = rest.split_once(':').unwrap_or((rest, ""));
        let (rest, tls) = match rest.rsplit_once(':') {
            Some((before, "ssl")) => (before, true),
            Some((before, "nossl")) => (before, false),
            _ => (rest, false),
        };
        let (mut password, mut place) = (rest, "");
        if let Some((before, last)) = rest.rsplit_once(':')
            && (last.is_empty() || last.starts_with(['/', '.']) || last.bytes().all(|b| b.is_ascii_digit()))
        {
            (password, place) = (before, last);
        }
        let or = |text: &str, default: &str| if text.is_empty() { default } else { text }.to_owned();
        let socket = place.starts_with(['/', '.']).then(|| place.to_owned());
        let port = match place {
            "" => 3306,
            _ if socket.is_some() => 3306,
            digits => digits.parse().ok().filter(|&p| p > 0).ok_or("the port must be from 1 to 65535")?,
        };
        if password.is_empty() && socket.is_none() {
            return Err("no password for the database, and there is no default one: write it as third field");
        }
        Ok(Self {
            host: or(host, "localhost"),
            user: or(user, "indimail"),
            password: password.as_bytes().into(),
            socket,
            port,
            tls,
        })
    }

    /// Where the server is, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        self.socket.clone().unwrap_or_else(|| format!("{}:{}", self.host, self.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_mysql_as_documented() {
        let p = |t: &str| HostMysql::parse(t.as_bytes()).unwrap();
        let a = p("db.example:mail:pa:ss:3307:ssl");
        assert_eq!((a.host.as_str(), a.user.as_str(), a.port, a.tls), ("db.example", "mail", 3307, true));
        assert_eq!(a.password.expose(), b"pa:ss");
        let b = p("localhost:indimail:x:/run/mysqld/mysqld.sock:nossl");
        assert_eq!((b.socket.as_deref(), b.tls), (Some("/run/mysqld/mysqld.sock"), false));
        let c = p("::secret");
        assert_eq!((c.host.as_str(), c.user.as_str(), c.port), ("localhost", "indimail", 3306));
        assert_eq!(p("[::1]:u:p:3306").host, "::1");
        assert_eq!(p("h:u::/sock").password.expose(), b"");
    }

    #[test]
    fn no_password_is_refused_and_none_is_built_in() {
        for line in ["", "localhost", "h:u", "h:u:", "h:u::3306", "h:u:p:0", "h:u:p:70000"] {
            let error = HostMysql::parse(line.as_bytes()).unwrap_err();
            assert!(!error.is_empty(), "{line}");
        }
    }

    #[test]
    fn the_store_follows_from_control_files() {
        let dir = tempfile::tempdir().unwrap();
        let control = Directory::new(dir.path());
        let load = || StoreSettings::load(&control, Path::new("/var/x"));
        let write = |name: &str, text: &str, mode| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert_eq!(load().unwrap().describe(), "sqlite:/var/x/accounts.sqlite");
        write("host.mysql", "h:u:pass-word:3306\n", 0o644);
        let error = load().unwrap_err().to_string();
        assert!(error.contains("0640") && !error.contains("pass-word"), "{error}");
        write("host.mysql", "h:u:pass-word:3306\n", 0o640);
        assert_eq!(load().unwrap().describe(), "mysql:indimail@h:3306");
        assert!(!format!("{:?}", load().unwrap()).contains("pass-word"));
        write("accountstore", "sqlite:/srv/a.sqlite\n", 0o644);
        assert_eq!(load().unwrap().describe(), "sqlite:/srv/a.sqlite");
        write("accountstore", "mysql:other\n", 0o644);
        assert_eq!(load().unwrap().describe(), "mysql:other@h:3306");
        for bad in ["postgres:", "sqlite:relative", "mysql:a;b", ""] {
            write("accountstore", bad, 0o644);
            assert!(load().unwrap_err().to_string().contains("accountstore:1: "), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = HostMysql::parse(&line);
        }
    }
}
