//! What is done for one connection in a process of its own before the program takes it over: questions to
//! the resolver and to the client's host, rules that need the answers, TLS.

use std::path::Path;

use program::Environment;
use unix::child::Launch;

use super::book::{Book, Decision, max_per_ip, max_per_network};
use super::log::Log;
use super::peers::{Names, Peers};
use super::secure::{Conversation, Secure};
use super::settings::{Rules, Settings};
use super::table::{Client, Limits, Reached, Table};
use crate::rules::Who;
use crate::tcp_env;

/// Exit code of a connection that a rule denies.
const DENIED: u8 = 100;
/// Exit code of a connection that cannot be served.
const DROPPED: u8 = 111;

/// A connection, in its own process; descriptors 0 and 1 are the connection.
pub(super) struct Copy<'a> {
    pub(super) settings: &'a Settings,
    pub(super) secure: Option<&'a dyn Secure>,
    pub(super) log: Log,
    pub(super) rules: Option<&'a Rules>,
    pub(super) path: Option<&'a Path>,
    pub(super) peers: Option<Peers>,
    pub(super) client: Client,
    pub(super) shown: &'a str,
    pub(super) environment: Environment,
    /// Rules were not asked yet.
    pub(super) by_name: bool,
    /// All connections when this one was accepted.
    pub(super) table: &'a Table,
    pub(super) limits: Limits,
}

impl Copy<'_> {
    /// Becomes the program, or returns the exit code.
    pub(super) fn run(mut self) -> u8 {
        let pid = std::process::id();
        if let Some(peers) = self.peers
            && self.settings.lookups.any()
        {
            tcp_env::ask(peers, self.settings.lookups, &mut self.environment);
        }
        let text = |name| self.environment.get(name).and_then(|v| v.to_str()).map(str::to_owned);
        let (host, info) = (text("TCPREMOTEHOST"), text("TCPREMOTEINFO"));
        let local = self.settings.local_host.clone().or_else(|| text("TCPLOCALHOST"));
        let names = Names { host: host.as_deref(), info: info.as_deref() };
        let ends = self.peers.map_or_else(|| self.shown.to_owned(), |p| p.shown(local.as_deref(), names));
        if self.by_name
            && let Err(code) = self.follow_rules(names, &ends)
        {
            return code;
        }
        self.log.step(&format!("ok {pid} {ends}:maxperip={}", self.limits.client));
        match self.secure {
            Some(secure) => secure.serve(Conversation {
                command: &self.settings.command,
                path: self.path,
                environment: self.environment,
                banner: self.settings.banner.as_deref(),
                log: self.log,
                shown: self.shown,
            }),
            None => self.become_program(),
        }
    }

    /// The rules of this moment, now that the client's name and user are known.
    fn follow_rules(&mut self, names: Names<'_>, ends: &str) -> Result<(), u8> {
        let Some(rules) = self.rules.cloned() else { return Ok(()) };
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
        verdict.apply(&mut self.environment);
        Ok(())
    }

    fn become_program(&self) -> u8 {
        let Some((program, args)) = self.settings.command.split_first() else { return DROPPED };
        let file = self.path.map_or(program.as_os_str(), Path::as_os_str);
        let error =
            Launch::new(file).arg0(program).args(args).env_exactly(self.environment.to_vec()).replace();
        self.log.error(&format!(
            "dropping connection from {}: unable to run {}: {error}",
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
