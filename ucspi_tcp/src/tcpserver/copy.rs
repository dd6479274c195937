//! What is done for one connection in a process of its own before the program takes it over: questions to
//! the resolver and to the client's host, rules that need the answers, TLS.

use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use program::Environment;
use unix::child::Launch;
use unix::image::{Changes, Image};

use super::book::{Book, Decision, max_per_ip, max_per_network};
use super::listener::From;
use super::log::Log;
use super::peers::{Names, Peers, describe_unix, safe};
use super::secure::{Conversation, Secure};
use super::settings::{Rules, Settings};
use super::table::{Client, Limits, Reached, Table};
use crate::proxy::Header;
use crate::rules::{Verdict, Who};
use crate::tcp_env;

/// Exit code of a connection that a rule denies.
const DENIED: u8 = 100;
/// Exit code of a connection that cannot be served.
const DROPPED: u8 = 111;

/// What the header of a proxy adds to a connection.
pub(super) struct Behind {
    pub(super) proxy: SocketAddr,
    pub(super) header: Header,
}

/// A connection, in its own process; descriptors 0 and 1 are the connection.
pub(super) struct Copy<'a> {
    pub(super) settings: &'a Settings,
    pub(super) secure: Option<&'a dyn Secure>,
    pub(super) log: Log,
    pub(super) rules: Option<&'a Rules>,
    pub(super) path: Option<&'a Path>,
    pub(super) image: &'a Image,
    pub(super) from: &'a From,
    pub(super) peers: Option<Peers>,
    pub(super) client: Client,
    pub(super) shown: &'a str,
    /// What a proxy says about the client.
    pub(super) behind: Option<&'a Behind>,
    /// What the rules say; `None`: they are to be asked when the client's name is known.
    pub(super) verdict: Option<&'a Verdict>,
    /// Is the line for an accepted connection still to be written?
    pub(super) says_ok: bool,
    /// All connections when this one was accepted.
    pub(super) table: &'a Table,
    pub(super) limits: Limits,
}

impl Copy<'_> {
    /// Becomes the program, or returns the exit code.
    pub(super) fn run(mut self) -> u8 {
        if let Some(verdict) = self.verdict
            && !self.says_ok
        {
            self.become_program_at_once(verdict);
        }
        let mut environment = self.settings.environment.clone();
        self.describe(&mut environment);
        if let Some(peers) = self.peers
            && self.settings.lookups.any()
        {
            tcp_env::ask(peers, self.settings.lookups, &mut environment);
        }
        let text = |name| environment.get(name).and_then(|v| v.to_str()).map(str::to_owned);
        let (host, info) = (text("TCPREMOTEHOST"), text("TCPREMOTEINFO"));
        let local = self.settings.local_host.clone().or_else(|| text("TCPLOCALHOST"));
        let names = Names { host: host.as_deref(), info: info.as_deref() };
        let ends = self.peers.map_or_else(|| self.shown.to_owned(), |p| p.shown(local.as_deref(), names));
        match self.verdict {
            Some(verdict) => verdict.apply(&mut environment),
            None => match self.follow_rules(names, &ends) {
                Ok(verdict) => verdict.apply(&mut environment),
                Err(code) => return code,
            },
        }
        if self.says_ok {
            self.log.step(&format!("ok {} {ends}:maxperip={}", std::process::id(), self.limits.client));
        }
        match self.secure {
            Some(secure) => secure.serve(Conversation {
                command: &self.settings.command,
                path: self.path,
                environment,
                banner: self.settings.banner.as_deref(),
                log: self.log,
                shown: self.shown,
            }),
            None => self.become_program(&environment),
        }
    }

    fn describe(&self, environment: &mut Environment) {
        match (&self.peers, self.from) {
            (Some(peers), _) => peers.describe(self.settings.local_host.as_deref(), environment),
            (None, From::Unix(path)) => describe_unix(path, environment),
            (None, From::Tcp(..)) => {}
        }
        if let Some(behind) = self.behind {
            describe_proxy(behind, environment);
        }
    }

    /// Nothing has to be asked: only what is about this connection is added to what was prepared. Returns when
    /// the program's file cannot be started like this; the long way finds out why.
    fn become_program_at_once(&self, verdict: &Verdict) {
        let named = self.settings.command.first().map(Path::new);
        let Some(file) = self.path.or(named.filter(|p| p.as_os_str().as_bytes().contains(&b'/'))) else {
            return;
        };
        let mut own = Environment::default();
        self.describe(&mut own);
        let mut changes: Changes =
            own.iter().map(|(n, v)| (n.as_bytes().to_vec(), Some(v.as_bytes().to_vec()))).collect();
        changes.extend(verdict.changes.iter().cloned());
        let _ = self.image.replace(file, &changes);
    }

    /// The rules of this moment, now that the client's name and user are known.
    fn follow_rules(&mut self, names: Names<'_>, ends: &str) -> Result<Verdict, u8> {
        let Some(rules) = self.rules.cloned() else { return Ok(Verdict::default()) };
        let who =
            Who { ip: self.peers.map(|p| p.remote.ip().to_canonical()), host: names.host, info: names.info };
        let verdict = match Book::open(rules, false).decide(who, self.log) {
            Decision::Allow(verdict) => verdict,
            Decision::Deny => {
                self.log.step(&format!("deny {} {ends}", std::process::id()));
                return Err(DENIED);
            }
            Decision::Drop(why) => {
                self.log.error(&format!("dropping connection from {}: {why}", self.shown));
                return Err(DROPPED);
            }
        };
        self.limits = Limits {
            client: max_per_ip(&verdict).unwrap_or(self.settings.per_client),
            network: max_per_network(&verdict).or(self.settings.per_network),
        };
        if let Some(reached) = self.table.share(self.client, &self.limits).reached(self.client, &self.limits)
        {
            self.log.step(&limited(self.shown, reached));
            return Err(DROPPED);
        }
        Ok(verdict)
    }

    fn become_program(&self, environment: &Environment) -> u8 {
        let Some((program, args)) = self.settings.command.split_first() else { return DROPPED };
        let become_file = |file: &OsStr| {
            Launch::new(file).arg0(program).args(args).env_exactly(environment.to_vec()).replace()
        };
        let mut error = self.path.map(|path| become_file(path.as_os_str()));
        // It is not where it was found: searched for again.
        if error.as_ref().is_none_or(|e| e.kind() == io::ErrorKind::NotFound) {
            error = Some(become_file(program));
        }
        let why = error.map_or_else(String::new, |e| e.to_string());
        self.log.error(&format!(
            "dropping connection from {}: unable to run {}: {why}",
            self.shown,
            program.as_encoded_bytes().escape_ascii()
        ));
        DROPPED
    }
}

/// The line for a client above its limit.
pub(super) fn limited(shown: &str, reached: Reached) -> String {
    match reached {
        Reached::Client(limit) => format!("end {shown} perIPlimit {limit}"),
        Reached::Network(network, limit) => format!("end {shown} perNetLimit {limit} {network}"),
    }
}

fn describe_proxy(behind: &Behind, environment: &mut Environment) {
    let text = |bytes: &[u8]| safe(&String::from_utf8_lossy(bytes));
    environment.set("TCPPROXYIP", behind.proxy.ip().to_canonical().to_string());
    environment.set("TCPPROXYPORT", behind.proxy.port().to_string());
    if let Some(authority) = &behind.header.authority {
        environment.set("SSL_TLS_SNI", text(authority));
    }
    if let Some(tls) = &behind.header.tls {
        environment.set("SSL_PROTOCOL", text(&tls.version));
        environment.set("SSL_CIPHER", text(&tls.cipher));
        environment.set("SSL_CLIENT_VERIFY", if tls.verified { "SUCCESS" } else { "NONE" });
        if tls.verified {
            environment.set("SSL_CLIENT_S_DN", format!("CN={}", text(&tls.common_name)));
        }
    }
}
