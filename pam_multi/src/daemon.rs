//! [`Backend`] over inlookup's socket.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use lookup::conf::Conf;
use lookup::mail::{Client, Verdict};

use crate::arguments::Arguments;
use crate::decision::{Answer, Backend, Secret, Unavailable};

/// How long one question may take unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where to ask, and for how long. Nothing is opened before the first question, and nothing stays
/// open after it.
pub(crate) struct Daemon(Result<(PathBuf, Duration), String>);

impl Daemon {
    /// The daemon that the arguments name, else the one in the modules' configuration file.
    pub(crate) fn new(arguments: &Arguments) -> Self {
        let socket = arguments.socket.as_deref().map(|s| PathBuf::from(OsStr::from_bytes(s)));
        Self(match (socket, arguments.timeout) {
            (Some(socket), Some(timeout)) => Ok((socket, timeout)),
            (socket, timeout) => Conf::load().map_err(|e| e.to_string()).map(|conf| {
                (socket.unwrap_or(conf.inlookup_socket), timeout.or(conf.login_timeout).unwrap_or(PATIENCE))
            }),
        })
    }

    fn ask(
        &self,
        question: impl FnOnce(&mut Client) -> Result<Verdict, lookup::Unavailable>,
    ) -> Result<Answer, Unavailable> {
        let (socket, patience) = self.0.as_ref().map_err(|why| Unavailable(why.clone()))?;
        let verdict = question(&mut Client::new(socket, *patience))
            .map_err(|why| Unavailable(format!("{}: {why}", socket.as_os_str().as_bytes().escape_ascii())))?;
        Ok(match verdict {
            Verdict::Granted(_) => Answer::Granted,
            Verdict::Absent => Answer::Absent,
            Verdict::Wrong => Answer::Wrong,
            Verdict::Disabled => Answer::Disabled,
            Verdict::Expired => Answer::Expired,
            Verdict::PasswordExpired => Answer::PasswordExpired,
            Verdict::Later => Answer::Later,
        })
    }
}

impl Backend for Daemon {
    fn authenticate(
        &mut self,
        login: &[u8],
        password: &Secret,
        service: &[u8],
        remote_host: &[u8],
    ) -> Result<Answer, Unavailable> {
        self.ask(|client| client.authenticate(login, password, service, remote_host))
    }

    fn account(&mut self, login: &[u8], service: &[u8]) -> Result<Answer, Unavailable> {
        self.ask(|client| client.account(login, service))
    }
}
