//! Settings for the connections of a kind, read again when a file has changed.
//!
//! tcpserver starts a program for each connection, and so each finds the control files as they are. Here
//! all connections share what was read, and before each it is seen whether the files are still the same.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use program::{Environment, Layout, Problems};
use smtp::server::Policy;

use crate::settings::{self, Settings};
use crate::spec::SPEC;

/// Kinds of connections that are remembered.
const MOST: usize = 256;

/// What makes settings differ: the listener, the port, and what the rules change.
pub(crate) type Kind = (usize, u16, Vec<(Vec<u8>, Option<Vec<u8>>)>);

/// Which file it is, and in which state.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

#[derive(Debug)]
struct Profile {
    settings: Option<Arc<Settings>>,
    policy: Arc<Policy>,
    /// When the policy's greeting was dated, seconds since 1970.
    second: u64,
    files: Vec<(PathBuf, Stamp)>,
    stale: bool,
}

/// All kinds seen so far.
#[derive(Debug)]
pub(crate) struct Profiles {
    layout: Layout,
    known: HashMap<Kind, Profile>,
}

impl Profiles {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, known: HashMap::new() }
    }

    /// Reads everything again before the next connection.
    pub(crate) fn forget(&mut self) {
        self.known.values_mut().for_each(|profile| profile.stale = true);
    }

    /// The settings for a connection with these variables; `None` when they cannot be used and never could.
    /// `complain` is told once what is wrong with files that have changed; the settings that were good stay.
    pub(crate) fn find(
        &mut self,
        kind: &Kind,
        environment: &Environment,
        complain: &dyn Fn(&str),
    ) -> Option<(Arc<Settings>, Arc<Policy>)> {
        let fresh = self.known.get(kind).is_some_and(|p| !p.stale && !p.has_changed());
        if !fresh {
            if self.known.len() >= MOST && !self.known.contains_key(kind) {
                self.known.clear();
            }
            let old = self.known.remove(kind).and_then(|p| p.settings);
            let profile = Profile::load(environment, &self.layout, old, complain);
            self.known.insert(kind.clone(), profile);
        }
        let profile = self.known.get_mut(kind)?;
        let settings = profile.settings.clone()?;
        let now = unix::clock::unix_seconds();
        if settings.dated && profile.second != now {
            profile.policy = Arc::new(settings::dated(&profile.policy, now));
            profile.second = now;
        }
        Some((settings, profile.policy.clone()))
    }
}

impl Profile {
    fn load(
        environment: &Environment,
        layout: &Layout,
        old: Option<Arc<Settings>>,
        complain: &dyn Fn(&str),
    ) -> Self {
        // The stamps come first: what is replaced meanwhile is read once too often, never too seldom.
        let control = environment.control_directory();
        let cdb = ["badmailfrom.cdb", "badrcptto.cdb", "chkrcptdomains.cdb"];
        let names = SPEC.controls.iter().map(|c| c.name).chain(cdb);
        let mut files: Vec<_> = names.map(|name| with_stamp(control.file(name))).collect();
        let (loader, loaded) = settings::load(environment, layout);
        files.push(with_stamp(loaded.certificate.clone()));
        let settings = match loader.finish(loaded) {
            Ok(settings) => {
                keep_certificate(&settings, old.as_deref(), complain);
                Some(Arc::new(settings))
            }
            Err(Problems(all)) => {
                all.iter().for_each(|problem| complain(problem));
                if old.is_some() {
                    complain("the settings stay as they were");
                }
                old
            }
        };
        let policy = settings.as_ref().map(|s| s.policy.clone()).unwrap_or_default();
        Self { settings, policy, second: 0, files, stale: false }
    }

    fn has_changed(&self) -> bool {
        self.files.iter().any(|(path, seen)| stamp(path) != *seen)
    }
}

/// A certificate that worked is better than a new one that does not.
fn keep_certificate(new: &Settings, old: Option<&Settings>, complain: &dyn Fn(&str)) {
    let Some(working) = old.and_then(|old| old.tls.get()) else { return };
    if let Err(e) = new.tls() {
        complain(&format!("TLS: {e}: the certificate stays as it was"));
        let _ = new.tls.set(working.clone());
    }
}

fn with_stamp(path: PathBuf) -> (PathBuf, Stamp) {
    let stamp = stamp(&path);
    (path, stamp)
}

fn stamp(path: &PathBuf) -> Stamp {
    let m = fs::metadata(path).ok()?;
    Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec()))
}
