//! Everything tcpserver is told at its start.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use control::Directory;
use program::Environment;
use unix::{Gid, Uid};

use super::table::NetworkLimit;
use crate::networks::Networks;

/// Most connections that can be asked for.
pub const MAX_CONNECTIONS: u64 = 1_000_000;

/// How much is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Fatal errors.
    Quiet,
    /// All errors.
    Errors,
    /// Each step.
    Status,
    /// Each step and why it was taken.
    Detail,
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host name, an address, or nothing for all; and a port number or service name.
    Tcp {
        /// Host.
        host: String,
        /// Port.
        port: String,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// The limit of connections, which may be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limit {
    /// A number.
    Fixed(usize),
    /// A control file.
    File(Directory, String),
}

/// The limit when a control file does not exist or holds no number.
pub const DEFAULT_LIMIT: usize = 40;

impl Limit {
    /// The number now, and what is to be said about where it comes from. A file that does not exist or
    /// does not start with a number leaves the default in force, as everywhere with control files.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<(usize, Option<String>), control::Error> {
        let Self::File(directory, name) = self else {
            return Ok((self.fixed(), None));
        };
        let shown = directory.file(name);
        let (shown, default) = (shown.display(), DEFAULT_LIMIT);
        match directory.line(name)? {
            None => Ok((
                default,
                Some(format!(
                    "{shown}: does not exist: the limit is {default}; write a number to it and send HUP"
                )),
            )),
            Some(line) => match number_at_start(&line) {
                None => Ok((default, Some(format!("{shown}: expected a number: the limit is {default}")))),
                Some(0) => Ok((0, Some(format!("{shown}: the limit is 0: no connection is accepted")))),
                Some(number) => Ok((number, None)),
            },
        }
    }

    fn fixed(&self) -> usize {
        if let Self::Fixed(n) = self { *n } else { DEFAULT_LIMIT }
    }
}

/// The number that a line starts with, at most [`MAX_CONNECTIONS`]; `None` when it starts with none.
#[must_use]
pub fn number_at_start(line: &[u8]) -> Option<usize> {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    let text = std::str::from_utf8(&line[..digits]).ok().filter(|t| !t.is_empty())?;
    // More digits than fit are more connections than there can be.
    usize::try_from(text.parse().unwrap_or(MAX_CONNECTIONS).min(MAX_CONNECTIONS)).ok()
}

/// Rules for clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The database.
    pub path: PathBuf,
    /// Allow everybody while it does not exist?
    pub optional: bool,
}

/// What is asked about a client before the program starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lookups {
    /// Its name.
    pub host: bool,
    /// Does the name have to lead back?
    pub paranoid: bool,
    /// Its user, and how long to wait for the answer.
    pub info: Option<Duration>,
    /// Our own name.
    pub local_host: bool,
}

impl Lookups {
    /// Is anything asked at all?
    #[must_use]
    pub fn any(self) -> bool {
        self.host || self.local_host || self.info.is_some()
    }
}

/// Who to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
    /// All groups.
    pub groups: Vec<Gid>,
}

/// TLS, as options and variables have it; the files are read by who speaks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain and key.
    pub certificate: PathBuf,
    /// Directory of certificates for other names.
    pub names: PathBuf,
    /// Authorities of clients.
    pub authorities: Option<PathBuf>,
    /// Revoked certificates.
    pub revoked: Option<PathBuf>,
    /// Must clients show a certificate?
    pub required: bool,
    /// A file whose first line is a list of ciphers.
    pub cipher_file: Option<PathBuf>,
    /// Lists of ciphers for TLS 1.2 and 1.3.
    pub ciphers: [Option<String>; 2],
    /// Versions.
    pub versions: Option<String>,
    /// For the handshake.
    pub handshake: Duration,
    /// While nothing moves.
    pub idle: Duration,
    /// Set TLS_PROVIDER?
    pub provider: bool,
}

/// Proxies that speak for clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// Where they are.
    pub trusted: Networks,
    /// How long they may take to send the header.
    pub patience: Duration,
}

/// The settings.
#[derive(Debug)]
pub struct Settings {
    /// Where to listen.
    pub address: Address,
    /// What to run.
    pub command: Vec<OsString>,
    /// How much to print.
    pub verbosity: Verbosity,
    /// Connections at a time.
    pub limit: Limit,
    /// Connections of one client; 0: no limit.
    pub per_client: usize,
    /// Connections that wait.
    pub backlog: u32,
    /// Connections of a client's network.
    pub per_network: Option<NetworkLimit>,
    /// Rules.
    pub rules: Option<Rules>,
    /// The file that says where a table with rules is; connections are dropped while there are none, unless
    /// the flag says otherwise.
    pub table: Option<(PathBuf, bool)>,
    /// Proxies.
    pub proxies: Proxies,
    /// TLS.
    pub tls: Option<Tls>,
    /// Written to each connection.
    pub banner: Option<Vec<u8>>,
    /// Who to become.
    pub identity: Option<Identity>,
    /// Print the port?
    pub print_port: bool,
    /// IPv4 only?
    pub only_v4: bool,
    /// The interface of a link-local address to listen on.
    pub interface: Option<String>,
    /// Sockets that the service manager passed, descriptors 3 and up.
    pub inherited: u32,
    /// After TERM, how long to wait for programs; `None`: not at all.
    pub drain: Option<Duration>,
    /// A Unix socket that tells about the connections.
    pub status: Option<PathBuf>,
    /// Keep the IPv6 form of IPv4 clients?
    pub force_v6: bool,
    /// Clear IP options?
    pub kill_options: bool,
    /// TCP_NODELAY?
    pub no_delay: bool,
    /// TCPLOCALHOST.
    pub local_host: Option<String>,
    /// Lookups.
    pub lookups: Lookups,
    /// A file for the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to say that it is ready.
    pub notify_socket: Option<PathBuf>,
    /// The environment for programs.
    pub environment: Environment,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let limit = Limit::File(Directory::new(dir.path()), "max".into());
        let read = |text: &str| {
            std::fs::write(dir.path().join("max"), text).unwrap();
            limit.read().unwrap()
        };
        assert!(limit.read().unwrap().1.unwrap().contains("max: does not exist: the limit is 40"));
        assert_eq!(read("12\n7\n"), (12, None));
        assert_eq!(read("12 connections\n"), (12, None));
        assert_eq!(read("99999999999999999999999\n"), (1_000_000, None));
        assert_eq!(read("0\n").0, 0);
        for bad in ["", "many\n", "-1\n", " 5\n"] {
            let (n, note) = read(bad);
            assert!(n == 40 && note.unwrap().contains("expected a number"), "{bad}");
        }
        std::fs::remove_file(dir.path().join("max")).unwrap();
        std::fs::create_dir(dir.path().join("max")).unwrap();
        assert!(limit.read().is_err(), "cannot tell is not absent");
        assert_eq!(Limit::Fixed(3).read().unwrap(), (3, None));
    }

    proptest! {
        #[test]
        fn any_line_can_be_read(line: Vec<u8>) {
            prop_assert!(number_at_start(&line).is_none_or(|n| n <= 1_000_000));
        }
    }
}
