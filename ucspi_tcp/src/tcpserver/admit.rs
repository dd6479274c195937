//! What is done with one accepted connection.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use unix::child::run_with_connection;
use unix::clock::Deadline;

use super::book::{Book, Decision, max_per_ip, max_per_network};
use super::copy::{Behind, Copy, limited};
use super::listener::{Accepted, From, prepare};
use super::peers::{Names, Peers};
use super::pending::{Pending, Step};
use super::serve::Server;
use super::table::{Client, Connection, Limits};
use crate::proxy::Ends;
use crate::rules::{Verdict, Who};

impl Server<'_, '_> {
    /// A connection has come.
    pub(super) fn connection(&mut self, accepted: Accepted) {
        self.counts.accepted += 1;
        if let From::Tcp(_, remote) = accepted.from {
            let settings = self.settings;
            if let Err(e) = prepare(accepted.socket.as_fd(), settings.no_delay, settings.kill_options) {
                self.drop_it(&remote.ip().to_canonical().to_string(), &e.to_string());
                return;
            }
        }
        if let Some(banner) = &self.settings.banner
            && self.settings.tls.is_none()
        {
            // A new connection has room for it; a client that is gone already is found out by the program.
            let _ = unix::socket::send_quietly(accepted.socket.as_fd(), banner);
        }
        match accepted.from {
            From::Tcp(_, remote) if self.settings.proxies.trusted.contain(remote.ip()) => {
                self.pending.push(Pending::new(accepted, Deadline::after(self.settings.proxies.patience)));
                // The header is usually there already.
                self.take_headers();
            }
            _ => self.admit(&accepted, None),
        }
    }

    /// Goes on with connections whose PROXY header has come, or will not.
    pub(super) fn take_headers(&mut self) {
        let mut at = 0;
        while at < self.pending.len() {
            let step = self.pending[at].step();
            if matches!(step, Step::More) {
                at += 1;
                continue;
            }
            let pending = self.pending.swap_remove(at);
            let From::Tcp(_, proxy) = pending.accepted.from else { continue };
            match step {
                Step::Ready(header) => self.admit(&pending.accepted, Some(Behind { proxy, header })),
                Step::Gone(why) => {
                    self.drop_it(&proxy.ip().to_canonical().to_string(), &format!("proxy: {why}"));
                }
                Step::More => {}
            }
        }
    }

    fn drop_it(&mut self, shown: &str, why: &str) {
        self.counts.dropped += 1;
        self.log.error(&format!("dropping connection from {shown}: {why}"));
    }

    fn admit(&mut self, accepted: &Accepted, behind: Option<Behind>) {
        let settings = self.settings;
        let peers = match (&accepted.from, behind.as_ref().and_then(|b| b.header.ends)) {
            (From::Unix(_), _) => None,
            (From::Tcp(..), Some(Ends { source, destination })) => Some((destination, source)),
            (From::Tcp(local, remote), None) => Some((*local, *remote)),
        };
        let peers = peers.map(|(local, remote)| Peers { local, remote, force_v6: settings.force_v6 });
        let (client, shown) = match peers {
            Some(peers) => (Client::of(peers.remote.ip()), peers.remote_ip().to_string()),
            None => (Client::Local, "unix".to_owned()),
        };
        self.refresh_rules();
        let names = self.book.as_ref().and_then(Book::by_name).filter(|_| peers.is_some());
        let verdict = match self.decide(peers) {
            Decision::Allow(verdict) => verdict,
            // A rule by name may come before the one that was found.
            Decision::Deny if names.is_some() => Verdict::default(),
            Decision::Deny => {
                self.counts.denied += 1;
                let local = settings.local_host.as_deref();
                let ends = peers.map_or(shown, |p| p.shown(local, Names::default()));
                self.log.step(&format!("deny {} {ends}", std::process::id()));
                return;
            }
            Decision::Drop(why) => return self.drop_it(&shown, &why),
        };
        let mut limits = Limits {
            client: max_per_ip(&verdict).unwrap_or(settings.per_client),
            network: max_per_network(&verdict).or(settings.per_network),
        };
        if let Some(generous) = names {
            // Which limit it will be is known when the name is; until then the most generous one holds.
            let higher = |a: usize, b: usize| if a == 0 || b == 0 { 0 } else { a.max(b) };
            limits.client = generous.client.map_or(limits.client, |n| higher(n, limits.client));
            limits.network = limits.network.filter(|_| !generous.network);
        }
        if let Some(reached) = self.table.share(client, &limits).reached(client, &limits) {
            self.counts.limited += 1;
            self.log.step(&limited(&shown, reached));
            return;
        }
        let path = self.program.as_deref().filter(|_| !changes_path(&verdict));
        let asks = settings.lookups.any() && peers.is_some();
        let copy = Copy {
            settings,
            secure: self.secure.as_deref(),
            log: self.log,
            rules: self.book.as_ref().map(Book::rules),
            path,
            image: &self.image,
            from: &accepted.from,
            peers,
            behind: behind.as_ref(),
            client,
            shown: &shown,
            verdict: names.is_none().then_some(&verdict),
            says_ok: asks || self.secure.is_some(),
            table: &self.table,
            limits,
        };
        let says_ok = copy.says_ok;
        // A copy, and not posix_spawn: that holds the server up until the program's file is mapped, and
        // clients that come at the same time could not use another processor meanwhile.
        match run_with_connection(accepted.socket.as_fd(), &self.passed_on, || copy.run()) {
            Ok(pid) => {
                self.table.add(pid, Connection { client, shown: shown.clone(), since: Instant::now() });
                self.status_line(&format!(" start, pid={pid}, IP {shown}"));
                self.log.step(&format!("pid {pid} from {shown}"));
                if !says_ok {
                    let local = settings.local_host.as_deref();
                    let ends = peers.map_or(shown, |p| p.shown(local, Names::default()));
                    self.log.step(&format!("ok {pid} {ends}:maxperip={}", limits.client));
                }
            }
            Err(e) => self.drop_it(&shown, &format!("unable to fork: {e}")),
        }
        if let Some(secure) = &mut self.secure {
            secure.refresh();
        }
    }

    /// By the client's own address, not by the network that it counts for.
    fn decide(&self, peers: Option<Peers>) -> Decision {
        let (Some(book), Some(peers)) = (&self.book, peers) else {
            return Decision::Allow(Verdict::default());
        };
        book.decide(Who { ip: Some(peers.remote.ip().to_canonical()), ..Who::default() }, self.log)
    }

    /// Looks a program without a slash up in PATH once, since starting a file is cheaper than searching.
    pub(super) fn find_program(&mut self) {
        self.program =
            self.settings.command.first().filter(|c| !c.as_bytes().contains(&b'/')).and_then(|name| {
                let path = self.settings.environment.get("PATH")?;
                let executable = |f: &PathBuf| {
                    f.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
                };
                std::env::split_paths(path)
                    .map(|dir| dir.join(name))
                    .find(|f| f.is_absolute() && executable(f))
            });
    }
}

fn changes_path(verdict: &Verdict) -> bool {
    verdict.changes.iter().any(|(name, _)| name == b"PATH")
}
