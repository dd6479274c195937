//! Notes of granted logins: who last used which service, from where, and the relay row that a login by
//! IMAP or POP3 opens.
//!
//! They are written by a thread of its own, so that a login never waits for a write. What cannot be
//! written, or no longer fits the queue, is dropped: the login stands all the same.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use accounts::{Address, Event, ServiceFlags};
use lookup::mail::Mailbox;
use serve::Expiring;

use crate::answers::{Login, Now};
use crate::service::{Kind, noted_as};
use crate::settings::NoteSettings;
use crate::throttle::{self, remote_address};

/// Notes that may wait to be written.
const QUEUE: usize = 1024;

/// One login to be noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Whose.
    pub address: Address,
    /// By which service, from where, when.
    pub event: Event,
    /// May it relay from there?
    pub relay: bool,
}

/// Chooses what is noted and hands it to the writer.
#[derive(Debug)]
pub struct Notes {
    settings: NoteSettings,
    /// Account, service and address of logins noted a moment ago.
    recent: Mutex<Expiring<()>>,
    queue: SyncSender<Note>,
}

impl Notes {
    /// Starts the writer's thread; `write` is called in it, for one note at a time.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(settings: NoteSettings, mut write: impl FnMut(&Note) + Send + 'static) -> io::Result<Self> {
        let (queue, notes) = sync_channel::<Note>(QUEUE);
        std::thread::Builder::new().name("notes".to_owned()).spawn(move || {
            notes.iter().for_each(|note| write(&note));
        })?;
        Ok(Self { settings, recent: Mutex::new(Expiring::new(throttle::CAPACITY)), queue })
    }

    /// Notes a granted login; false when it was dropped because too many wait.
    pub fn take(&self, login: &Login<'_>, mailbox: &Mailbox, now: Now) -> bool {
        match self.choose(login, mailbox, now) {
            Some(note) => self.queue.try_send(note).is_ok(),
            None => true,
        }
    }

    /// The note, unless it is not wanted or was written a moment ago.
    fn choose(&self, login: &Login<'_>, mailbox: &Mailbox, now: Now) -> Option<Note> {
        if !self.settings.enabled {
            return None;
        }
        let address = Address::parse(&mailbox.address).ok()?;
        let service = noted_as(login.service)?;
        let ip = remote_address(login.remote_host);
        let relay = self.settings.open_relay
            && ip.is_some()
            && matches!(Kind::of(login.service), Kind::Imap | Kind::Pop)
            && !ServiceFlags::from_bits(mailbox.flags).contains(ServiceFlags::NO_RELAY);
        let remote_ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
        let key = format!("{address} {} {remote_ip}", service.as_str()).into_bytes();
        if !self.is_new(key, now.instant) {
            return None;
        }
        let at = i64::try_from(now.unix).unwrap_or(i64::MAX);
        Some(Note { address, event: Event { service, remote_ip, at }, relay })
    }

    fn is_new(&self, key: Vec<u8>, now: Instant) -> bool {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let new = recent.get(&key, now).is_none();
        if new {
            recent.insert(key, (), self.settings.interval, now);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    fn notes(enabled: bool, open_relay: bool) -> (Notes, Receiver<Note>) {
        let (told, hear) = channel();
        let settings = NoteSettings { enabled, interval: Duration::from_secs(60), open_relay };
        (Notes::start(settings, move |note| told.send(note.clone()).unwrap()).unwrap(), hear)
    }

    fn mailbox(flags: ServiceFlags) -> Mailbox {
        Mailbox {
            address: b"jane@example.com".to_vec(),
            uid: unix::Uid::from_raw(1),
            gid: unix::Gid::from_raw(1),
            home: Vec::new(),
            gecos: Vec::new(),
            quota: lookup::mail::Quota::default(),
            flags: flags.bits(),
            active: true,
            alias_only: false,
            aliases: Vec::new(),
        }
    }

    fn login<'a>(service: &'a str, host: &'a str) -> Login<'a> {
        Login { address: b"jane@alias.example", service: service.as_bytes(), remote_host: host.as_bytes() }
    }

    #[test]
    fn a_login_is_noted_once_in_a_while_under_its_real_address() {
        let (notes, hear) = notes(true, true);
        let mut now = Now { instant: Instant::now(), unix: 1000 };
        let written = |notes: &Notes, service, host, now| {
            assert!(notes.take(&login(service, host), &mailbox(ServiceFlags::NONE), now));
            // A last one that is always written shows that nothing else was.
            let end = Login { address: b"", service: b"end", remote_host: b"" };
            let mark = Mailbox {
                address: format!("mark{}@x.y", hear_count()).into_bytes(),
                ..mailbox(ServiceFlags::NONE)
            };
            assert!(notes.take(&end, &mark, now));
            let mut all = Vec::new();
            loop {
                let note = hear.recv().unwrap();
                if note.event.service.as_str() == "end" {
                    return all;
                }
                let e = note.event;
                all.push(format!(
                    "{} {} [{}] {} {}",
                    note.address,
                    e.service.as_str(),
                    e.remote_ip,
                    e.at,
                    note.relay
                ));
            }
        };
        assert_eq!(
            written(&notes, "imaps", "192.0.2.1", now),
            ["jane@example.com imap [192.0.2.1] 1000 true"]
        );
        assert!(written(&notes, "imap", "192.0.2.1", now).is_empty());
        assert_eq!(
            written(&notes, "sshd", "192.0.2.1", now),
            ["jane@example.com sshd [192.0.2.1] 1000 false"]
        );
        assert_eq!(written(&notes, "pop3", "127.0.0.1", now), ["jane@example.com pop3 [] 1000 false"]);
        assert_eq!(written(&notes, "imap", "host.name", now), ["jane@example.com imap [] 1000 false"]);
        now = Now { instant: now.instant + Duration::from_secs(60), unix: 1060 };
        assert_eq!(
            written(&notes, "imap", "192.0.2.1", now),
            ["jane@example.com imap [192.0.2.1] 1060 true"]
        );
    }

    /// A number that is new each time.
    fn hear_count() -> usize {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    #[test]
    fn relaying_is_opened_when_wanted_and_allowed_only() {
        let now = Now { instant: Instant::now(), unix: 1000 };
        for (open_relay, flags, expected) in [
            (true, ServiceFlags::NONE, true),
            (true, ServiceFlags::NO_RELAY, false),
            (false, ServiceFlags::NONE, false),
        ] {
            let (notes, hear) = notes(true, open_relay);
            assert!(notes.take(&login("imap", "192.0.2.1"), &mailbox(flags), now));
            assert_eq!(hear.recv().unwrap().relay, expected);
        }
        let (notes, hear) = notes(false, true);
        assert!(notes.take(&login("imap", "192.0.2.1"), &mailbox(ServiceFlags::NONE), now));
        drop(notes);
        assert!(hear.recv().is_err(), "nothing is noted when that is switched off");
    }

    #[test]
    fn a_writer_that_hangs_costs_notes_and_no_login() {
        let (go, wait) = channel::<()>();
        let settings = NoteSettings { enabled: true, interval: Duration::ZERO, open_relay: false };
        let notes = Notes::start(settings, move |_| while wait.recv().is_ok() {}).unwrap();
        let now = Now { instant: Instant::now(), unix: 1000 };
        let taken =
            (0..QUEUE + 2).filter(|_| notes.take(&login("imap", ""), &mailbox(ServiceFlags::NONE), now));
        assert!((QUEUE..=QUEUE + 1).contains(&taken.count()));
        drop(go);
    }
}
