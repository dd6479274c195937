//! What qmail-send reads from variables and control files.

use control::{Directory, Map};
use mta_queue::layout::Channel;
use program::{Loader, Source};
use unix::durable::Durability;

use super::bounce::Policy;
use crate::clean::OSSIFIED;
use crate::place::{Place, durability, host_source};

/// Everything.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) place: Place,
    /// Suffix of delivery numbers in the log.
    pub(crate) ident: Option<Vec<u8>>,
    /// Lock the log with the other senders of this installation?
    pub(crate) loglock: bool,
    /// Age in seconds at which a message that nobody sorted is garbage.
    pub(crate) ossified: u64,
    /// Seconds before a deferral becomes a failure.
    pub(crate) lifetime: u64,
    /// The same for bounces.
    pub(crate) bounce_lifetime: u64,
    pub(crate) policy: Policy,
    pub(crate) reread: Reread,
}

/// What HUP reads again.
#[derive(Debug)]
pub(crate) struct Reread {
    /// Deliveries at once, by [`Channel::index`].
    pub(crate) limits: [u64; 2],
    /// Start nothing on this channel?
    pub(crate) hold: [bool; 2],
    pub(crate) virtualdomains: Map,
    pub(crate) durability: Durability,
}

impl Settings {
    pub(crate) fn load(loader: &mut Loader<'_>) -> Self {
        let variable = |name| Source { variable: Some(name), ..Source::default() };
        let control = |name| Source { control: Some(name), ..Source::default() };
        let place = Place::load(loader);
        let queue = place.short_name();
        let seconds = 0..=u64::from(u32::MAX);
        let lifetime = loader.number("queue lifetime", control("queuelifetime"), 604_800, seconds.clone());
        let bounce_lifetime =
            loader.number("bounce lifetime", control("bouncelifetime"), 604_800, seconds.clone());
        Self {
            ident: loader.bytes("ident", variable("QIDENT")),
            loglock: loader.environment().bytes("LOGLOCK").is_some_and(|v| !v.is_empty()),
            ossified: loader.number("ossified", variable("OSSIFIED"), OSSIFIED, seconds),
            lifetime,
            bounce_lifetime: bounce_lifetime.min(lifetime),
            policy: policy(loader),
            reread: Reread::load(loader, &queue),
            place,
        }
    }
}

impl Reread {
    pub(crate) fn load(loader: &mut Loader<'_>, queue: &[u8]) -> Self {
        let queue = String::from_utf8_lossy(queue).into_owned();
        let virtualdomains = loader.control().map("virtualdomains");
        Self {
            limits: Channel::BOTH.map(|channel| limit(loader, channel, &queue)),
            hold: ["holdlocal", "holdremote"].map(|file| {
                let from = Source { control: Some(file), ..Source::default() };
                loader.number(file, from, 0, 0..=u64::from(u32::MAX)) != 0
            }),
            virtualdomains: loader.take(virtualdomains).unwrap_or_default(),
            durability: durability(loader),
        }
    }
}

/// `concurrencyl.QUEUE` over `concurrencylocal`, and the same for remote.
fn limit(loader: &mut Loader<'_>, channel: Channel, queue: &str) -> u64 {
    let (general, default, letter) = match channel {
        Channel::Local => ("concurrencylocal", 10, 'l'),
        Channel::Remote => ("concurrencyremote", 20, 'r'),
    };
    let range = 0..=u64::from(u16::MAX);
    let own = format!("concurrency{letter}.{queue}");
    let general = loader.number(
        general,
        Source { control: Some(general), ..Source::default() },
        default,
        range.clone(),
    );
    loader.number(&own, Source { control: Some(&own), ..Source::default() }, general, range)
}

fn policy(loader: &mut Loader<'_>) -> Policy {
    let line = |loader: &mut Loader<'_>, file: &str| {
        let answer = loader.control().line(file);
        loader.take(answer)
    };
    let line_or = |loader: &mut Loader<'_>, file: &str, default: &str| {
        line(loader, file).filter(|l| !l.is_empty()).unwrap_or_else(|| default.as_bytes().to_vec())
    };
    let host = |loader: &mut Loader<'_>, file: &str| {
        let answer = loader.control().line_or_me(file, file).map(Some);
        let host = loader.take(answer).unwrap_or_default();
        let source = host_source(loader, file);
        loader.show(file, host.escape_ascii(), source);
        host
    };
    let native = |loader: &mut Loader<'_>, file: &str| {
        let answer = loader.control().native(file);
        loader.take(answer)
    };
    let double_host = host(loader, "doublebouncehost");
    let double_to = line(loader, "doublebounceto").unwrap_or_else(|| b"postmaster".to_vec());
    let double_to = match double_to.first() {
        None | Some(b'@') => None,
        Some(_) => Some([&double_to[..], b"@", &double_host].concat()),
    };
    let max_bytes = Source { control: Some("bouncemaxbytes"), ..Source::default() };
    Policy {
        from: line_or(loader, "bouncefrom", "MAILER-DAEMON"),
        host: host(loader, "bouncehost"),
        double_to,
        max_bytes: loader.number("bounce max bytes", max_bytes, 50_000, 0..=u64::from(u32::MAX)),
        messages: ["bouncemessage", "doublebouncemessage"].map(|file| native(loader, file)),
        subjects: ["bouncesubject", "doublebouncesubject"]
            .map(|file| line_or(loader, file, "failure notice")),
    }
}

/// The file whose lock senders share when LOGLOCK is set.
pub(crate) fn log_lock_file(control: &Directory) -> std::path::PathBuf {
    control.file("defaultdelivery")
}

#[cfg(test)]
mod tests {
    use super::*;
    use program::Environment;

    fn load(files: &[(&str, &str)]) -> Settings {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let env =
            Environment::from_iter([("CONTROLDIR", dir.path().to_str().unwrap()), ("QUEUEDIR", "/q/queue7")]);
        let mut loader = Loader::new(&env);
        let settings = Settings::load(&mut loader);
        loader.finish(settings).unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let s = load(&[("me", "mx.example\n")]);
        assert_eq!(s.reread.limits, [10, 20]);
        assert_eq!((s.lifetime, s.bounce_lifetime, s.policy.max_bytes), (604_800, 604_800, 50_000));
        assert_eq!((&s.policy.from[..], &s.policy.host[..]), (&b"MAILER-DAEMON"[..], &b"mx.example"[..]));
        assert_eq!(s.policy.double_to.unwrap(), b"postmaster@mx.example");
    }

    #[test]
    fn files_of_a_queue_override_the_general_ones() {
        let s = load(&[
            ("concurrencylocal", "3\n"),
            ("concurrencyr.queue7", "5\n"),
            ("concurrencyl.queue8", "9\n"),
        ]);
        assert_eq!(s.reread.limits, [3, 5]);
    }

    #[test]
    fn double_bounces_can_be_discarded_and_bounces_never_live_longer() {
        for text in ["\n", "", "@nowhere\n"] {
            assert!(load(&[("doublebounceto", text)]).policy.double_to.is_none(), "{text:?}");
        }
        assert_eq!(load(&[("queuelifetime", "50\n")]).bounce_lifetime, 50);
    }
}
