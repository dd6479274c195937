//! The rules database: opened again whenever it was replaced, read for every connection.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use cdb::Reader;

use super::log::Log;
use super::peers::safe;
use super::settings::Rules;
use super::table::NetworkLimit;
use crate::rules::{Verdict, Who, look_up};

/// What is done with a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is served, with these changes.
    Allow(Verdict),
    /// A rule denies it.
    Deny,
    /// The rules cannot be read: nobody is let in by mistake.
    Drop(String),
}

/// Which file it is, and in which state.
type Stamp = (u64, u64, u64, i64, i64);

#[derive(Debug)]
enum State {
    Missing,
    Unusable(String),
    Open(Reader),
}

/// What rules by name or user allow at most: such rules are known only when the name is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Generous {
    /// The highest MAXPERIP; 0: no limit.
    pub client: Option<usize>,
    /// Is there any MAXPERNET?
    pub network: bool,
}

/// The rules.
#[derive(Debug)]
pub struct Book {
    rules: Rules,
    /// Are names or users asked for at all?
    names: bool,
    stamp: Option<Stamp>,
    state: State,
    by_name: Option<Generous>,
}

impl Book {
    /// Opens the database. `names`: names or users of clients will be known.
    #[must_use]
    pub fn open(rules: Rules, names: bool) -> Self {
        let mut book = Self { rules, names, stamp: None, state: State::Missing, by_name: None };
        book.read();
        book
    }

    /// Where it is.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Why it cannot be used, if so.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        match &self.state {
            State::Unusable(why) => Some(format!("unable to read {}: {why}", self.rules.path.display())),
            State::Missing if !self.rules.optional => Some(format!(
                "{}: does not exist, so that no connection is allowed; make it with tcprules, or use -X",
                self.rules.path.display()
            )),
            _ => None,
        }
    }

    /// Opens it again when another file has taken its place; true when it has.
    pub fn refresh(&mut self) -> bool {
        // What could not be read is tried again each time: its permissions may be different now.
        let usable = !matches!(self.state, State::Unusable(_));
        if usable && self.look().is_ok_and(|stamp| stamp == self.stamp) {
            return false;
        }
        let before = self.problem();
        self.read();
        usable || before != self.problem()
    }

    fn look(&self) -> io::Result<Option<Stamp>> {
        match fs::metadata(&self.rules.path) {
            Ok(m) => Ok(Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read(&mut self) {
        self.by_name = None;
        // The stamp comes first: what is replaced meanwhile is read once too often, never too seldom.
        let opened = self.look().map(|stamp| self.stamp = stamp).map_err(cdb::Error::from).and_then(|()| {
            let reader = Reader::open(&self.rules.path)?;
            if let (Some(reader), true) = (&reader, self.names) {
                self.by_name = generous(reader)?;
            }
            Ok(reader)
        });
        self.state = match opened {
            Ok(Some(reader)) => State::Open(reader),
            Ok(None) => State::Missing,
            Err(e) => State::Unusable(e.to_string()),
        };
    }

    /// Does it take a name or a user to know which rule counts? Then: what such rules allow at most.
    #[must_use]
    pub fn by_name(&self) -> Option<Generous> {
        self.by_name
    }

    /// What is done with this client.
    #[must_use]
    pub fn decide(&self, who: Who<'_>, log: Log) -> Decision {
        let path = self.rules.path.display();
        match &self.state {
            State::Missing if self.rules.optional => Decision::Allow(Verdict::default()),
            State::Missing => Decision::Drop(format!("{path} does not exist")),
            State::Unusable(why) => Decision::Drop(format!("{path}: {why}")),
            State::Open(reader) => match look_up(who, |key| reader.get(key)) {
                Ok(Some((key, verdict))) => {
                    log.detail(|| format!("rule {}: {}", shown(who), key.escape_ascii()));
                    if verdict.deny { Decision::Deny } else { Decision::Allow(verdict) }
                }
                Ok(None) => {
                    log.detail(|| format!("no rule {}", shown(who)));
                    Decision::Allow(Verdict::default())
                }
                Err(e) => Decision::Drop(format!("{path}: {e}")),
            },
        }
    }
}

fn shown(who: Who<'_>) -> String {
    let name = |sign: &str, name: Option<&str>| name.map_or(String::new(), |n| format!("{sign}{}", safe(n)));
    let ip = who.ip.map_or(String::new(), |ip| ip.to_string());
    format!("for {ip}{}{}", name("=", who.host), name(" user ", who.info))
}

/// `None` without rules by name or user.
fn generous(reader: &Reader) -> Result<Option<Generous>, cdb::Error> {
    let mut found: Option<Generous> = None;
    for record in reader.records() {
        let record = record?;
        if !record.key.iter().any(|b| b"=@".contains(b)) {
            continue;
        }
        let verdict = Verdict::decode(&record.value);
        let so_far = found.get_or_insert_default();
        if let Some(limit) = max_per_ip(&verdict) {
            let higher = |a: usize, b: usize| if a == 0 || b == 0 { 0 } else { a.max(b) };
            so_far.client = Some(so_far.client.map_or(limit, |other| higher(limit, other)));
        }
        so_far.network |= max_per_network(&verdict).is_some();
    }
    Ok(found)
}

/// The limit for one client by a rule.
#[must_use]
pub fn max_per_ip(verdict: &Verdict) -> Option<usize> {
    verdict.value(b"MAXPERIP").and_then(|v| std::str::from_utf8(v).ok()?.trim().parse().ok())
}

/// The limit for its network by a rule.
#[must_use]
pub fn max_per_network(verdict: &Verdict) -> Option<NetworkLimit> {
    verdict.value(b"MAXPERNET").and_then(|v| std::str::from_utf8(v).ok()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const QUIET: Log = Log(crate::tcpserver::settings::Verbosity::Quiet);

    fn write(path: &Path, rules: &[u8]) {
        crate::tcprules::build(rules).unwrap().replace(path, 0o644, None).unwrap();
    }

    #[test]
    fn a_database_is_followed_through_its_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.cdb");
        let rules = Rules { path: path.clone(), optional: false };
        let mut book = Book::open(rules.clone(), true);
        let who = Who { ip: Some("10.0.0.1".parse().unwrap()), ..Who::default() };
        assert!(matches!(book.decide(who, QUIET), Decision::Drop(_)), "missing");
        assert!(book.problem().unwrap().contains("does not exist"));
        write(&path, b"10.:deny\n");
        assert!(book.refresh() && !book.refresh());
        assert_eq!((book.decide(who, QUIET), book.by_name()), (Decision::Deny, None));
        write(
            &path,
            b"10.:allow\n=.x:allow,MAXPERIP=\"7\"\nme@=:allow,MAXPERIP=\"9\"\n1.:allow,MAXPERIP=\"99\"\n",
        );
        assert!(book.refresh());
        assert_eq!(book.decide(who, QUIET), Decision::Allow(Verdict::default()));
        assert_eq!(book.by_name(), Some(Generous { client: Some(9), network: false }));
        write(&path, b"=:allow,MAXPERIP=\"7\"\n=.x:allow,MAXPERIP=\"0\",MAXPERNET=\"5\"\n");
        assert!(book.refresh());
        assert_eq!(book.by_name(), Some(Generous { client: Some(0), network: true }));
        assert_eq!(Book::open(rules.clone(), false).by_name(), None, "nobody will have a name");
        fs::write(&path, "no database").unwrap();
        assert!(book.refresh());
        assert!(!book.refresh(), "the same problem is told once");
        assert!(matches!(book.decide(who, QUIET), Decision::Drop(_)), "damaged");
        let lax = Rules { path: path.clone(), optional: true };
        assert!(
            matches!(Book::open(lax.clone(), true).decide(who, QUIET), Decision::Drop(_)),
            "-X is for missing ones only"
        );
        fs::remove_file(&path).unwrap();
        let lax = Book::open(lax.clone(), true);
        assert_eq!((lax.decide(who, QUIET), lax.problem()), (Decision::Allow(Verdict::default()), None));
    }
}
