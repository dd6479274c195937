//! Aliases and `.qmail` files of accounts.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use lookup::mail::Mailbox;

use super::{Settings, headers, mailbox};
use crate::End;
use crate::dotqmail::{self, Action, Interpreter};
use crate::forward::{self, Forward};
use crate::message_file::Message;
use crate::shell::{self, Meaning};

/// Programs that need RPLINE and DTLINE: they send or store mail themselves.
const MAIL_PROGRAMS: &[&str] = &[
    "autoresponder",
    "condredirect",
    "condtomaildir",
    "dot-forward",
    "fastforward",
    "filterto",
    "forward",
    "maildirdeliver",
    "preline",
    "qnotify",
    "qsmhook",
    "replier",
    "rrforward",
    "serialcmd",
];

/// The `.qmail` of an account's home, if there is one.
pub(super) fn of_home(mailbox: &Mailbox) -> Result<Option<Vec<u8>>, End> {
    let home = Path::new(OsStr::from_bytes(&mailbox.home));
    let found = dotqmail::find(home, b"", b"", 0o002).map_err(|e| End::Temporary(format!("{e} (#4.2.1)")))?;
    Ok(found.map(|f| f.text))
}

/// Obeys lines. All of them are tried; one that failed for now makes the whole delivery wait, one
/// that failed for good makes it bounce.
pub(super) fn obey(
    settings: &Settings,
    message: &Message,
    mailbox: &Mailbox,
    text: &[u8],
) -> Result<(), End> {
    if settings.resident.is_some() {
        return Err(End::NeedsProgram);
    }
    let address = mailbox.address.escape_ascii();
    let parsed = dotqmail::parse(text);
    let lines = parsed.map_err(|e| End::Temporary(format!("lines of {address}: {e} (#4.2.1)")))?;
    let home = Path::new(OsStr::from_bytes(&mailbox.home));
    let mut interpreter = Interpreter::new(&lines, false);
    let mut failures = Failures::default();
    loop {
        match interpreter.next_action() {
            Action::Finish => break,
            Action::Mbox(path) | Action::Maildir(path) => {
                let directory = below(home, path);
                failures.note(own_or_other(settings, message, mailbox, &directory));
            }
            Action::Program(line) => {
                let meaning = failures.note_program(program(settings, message, home, line));
                interpreter.program_ended(meaning);
            }
            Action::Variables(_) => {
                failures
                    .note(Err(End::Temporary(format!("lines of {address}: % is not for accounts (#4.2.1)"))));
            }
            Action::Refuse(what) => {
                failures.note(Err(End::Temporary(format!("lines of {address}: {what} (#4.2.1)"))));
                break;
            }
        }
    }
    let (own, others): (Vec<_>, Vec<_>) =
        interpreter.forwards.into_iter().partition(|f| is_own(f, mailbox, settings));
    if !own.is_empty() && !mailbox.alias_only {
        failures.note(mailbox::deliver(settings, message, mailbox));
    }
    if !others.is_empty() {
        failures.note(forward(settings, message, &others));
    } else if !own.is_empty() && mailbox.alias_only {
        failures.note(Err(End::Permanent(format!("the alias {address} leads to itself (#5.4.6)"))));
    }
    failures.end()
}

/// Sends the message on.
pub(super) fn forward(settings: &Settings, message: &Message, to: &[Vec<u8>]) -> Result<(), End> {
    if settings.resident.is_some() {
        return Err(End::NeedsProgram);
    }
    let forward = Forward {
        sender: &settings.sender,
        recipients: to,
        prefix: &headers::for_forward(settings, to),
        layout: &settings.layout,
        environment: &forward::environment(&settings.environment),
    };
    crate::say(&forward.send(message)?);
    Ok(())
}

/// Delivers to a Maildir that need not be an account's.
pub(super) fn to_directory(settings: &Settings, message: &Message, directory: &Path) -> Result<(), End> {
    mailbox::into(settings, message, directory, &headers::for_mailbox(settings))
}

/// Her own Maildir has a quota and is made on demand, any other must be there.
fn own_or_other(
    settings: &Settings,
    message: &Message,
    mailbox: &Mailbox,
    directory: &Path,
) -> Result<(), End> {
    let own = Path::new(OsStr::from_bytes(&mailbox.home)).join("Maildir");
    if !mailbox.alias_only && directory.components().eq(own.components()) {
        return mailbox::deliver(settings, message, mailbox);
    }
    to_directory(settings, message, directory)
}

fn below(home: &Path, path: &[u8]) -> PathBuf {
    // Joining an absolute path replaces the home.
    home.join(OsStr::from_bytes(path.strip_prefix(b"./").unwrap_or(path)))
}

fn is_own(address: &[u8], mailbox: &Mailbox, settings: &Settings) -> bool {
    address.eq_ignore_ascii_case(&mailbox.address) || address.eq_ignore_ascii_case(&settings.address())
}

fn program(settings: &Settings, message: &Message, home: &Path, line: &[u8]) -> Result<Meaning, End> {
    let not_now = |e: io::Error| End::Temporary(format!("cannot run a program: {e} (#4.3.0)"));
    let file = with_heading(&headers::for_program(settings), message, home).map_err(not_now)?;
    let copy = Message::new(file);
    let mut environment = settings.environment.clone();
    environment.remove(lookup::mail::handed::VARIABLE);
    if !is_mail_program(line) {
        environment.remove("RPLINE");
        environment.remove("DTLINE");
    }
    let descriptor = copy.descriptor().map_err(not_now)?;
    let ending = shell::run(line, descriptor.as_fd(), &environment).map_err(not_now)?;
    match Meaning::of(ending) {
        // The program has printed its own reason.
        Meaning::Permanent => Err(End::Permanent(String::new())),
        Meaning::Temporary => Err(End::Temporary(shell::unsaid(ending))),
        meaning => Ok(meaning),
    }
}

fn is_mail_program(line: &[u8]) -> bool {
    let word = line.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let name = word.rsplit(|&b| b == b'/').next().unwrap_or_default();
    MAIL_PROGRAMS.iter().any(|p| p.as_bytes() == name)
}

/// A file without a name, in the home or else here, that holds the heading and the message.
fn with_heading(heading: &[u8], message: &Message, home: &Path) -> io::Result<File> {
    let stamp = unix::clock::since_epoch().as_nanos();
    let place = if home.is_dir() { home } else { Path::new(".") };
    let path = place.join(format!(".vdelivermail.{}.{stamp}", std::process::id()));
    let mut file = unix::durable::create_new(&path, 0o600)?;
    std::fs::remove_file(&path)?;
    file.write_all(heading)?;
    message.copy_to(&mut file)?;
    Ok(file)
}

/// What went wrong so far.
#[derive(Debug, Default)]
struct Failures {
    temporary: Option<String>,
    permanent: Option<String>,
}

impl Failures {
    fn note(&mut self, result: Result<(), End>) {
        match result {
            Ok(()) | Err(End::Done) => {}
            // Nothing was done: not now.
            Err(End::NeedsProgram) => drop(self.temporary.get_or_insert_default()),
            Err(End::Temporary(text)) => drop(self.temporary.get_or_insert(text)),
            Err(End::Permanent(text)) => drop(self.permanent.get_or_insert(text)),
        }
    }

    fn note_program(&mut self, result: Result<Meaning, End>) -> Meaning {
        match result {
            Ok(meaning) => meaning,
            Err(end) => {
                self.note(Err(end));
                Meaning::GoOn
            }
        }
    }

    fn end(self) -> Result<(), End> {
        match (self.temporary, self.permanent) {
            (Some(text), _) => Err(End::Temporary(text)),
            (None, Some(text)) => Err(End::Permanent(text)),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn must_one_failed_line_is_never_success() {
        let end = |results: Vec<Result<(), End>>| {
            let mut failures = Failures::default();
            results.into_iter().for_each(|r| failures.note(r));
            failures.end()
        };
        let (t, p) = (|| Err(End::Temporary("t".into())), || Err(End::Permanent("p".into())));
        assert_eq!(end(vec![Ok(()), Ok(())]), Ok(()));
        assert_eq!(end(vec![Ok(()), p(), Ok(())]), p());
        assert_eq!(end(vec![p(), t(), Ok(())]), t());
        assert_eq!(end(vec![t(), Ok(()), p()]), t());
    }

    #[test]
    fn mail_programs_are_known_by_their_name() {
        assert!(is_mail_program(b" /usr/bin/autoresponder -q x"));
        assert!(is_mail_program(b"forward a@b"));
        assert!(!is_mail_program(b"cat forward"));
        assert!(!is_mail_program(b""));
    }

    #[test]
    fn paths_are_below_the_home_unless_absolute() {
        assert_eq!(below(Path::new("/h"), b"./Maildir/"), Path::new("/h/Maildir/"));
        assert_eq!(below(Path::new("/h"), b"/x/"), Path::new("/x/"));
    }
}
