//! The account's own Maildir: made when missing, within the quota.

use std::ffi::{OsStr, OsString};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use lookup::mail::Mailbox;
use maildir::Quota;
use maildir::quota::{Usage, Verdict};

use super::{Settings, headers};
use crate::End;
use crate::message_file::Message;

/// The account is over its quota and its mail bounces (a service flag).
const FLAG_BOUNCE: u32 = 0x10;
/// A flagged account takes mail again when this many bytes are free.
const ROOM: i64 = 1_024_000;

/// Delivers to the Maildir of `mailbox`.
pub(super) fn deliver(settings: &Settings, message: &Message, mailbox: &Mailbox) -> Result<(), End> {
    let (me, hers) = (unix::Uid::effective(), mailbox.uid);
    if me != hers {
        return Err(End::Temporary(format!(
            "the mailbox {} belongs to user {hers}, but this delivery runs as user {me} (#4.3.5)",
            mailbox.address.escape_ascii()
        )));
    }
    let maildir = Path::new(OsStr::from_bytes(&mailbox.home)).join("Maildir");
    prepare(&maildir)?;
    let heading = headers::for_mailbox(settings);
    let length = u64::try_from(heading.len()).unwrap_or(u64::MAX);
    let size = message.size().map_err(not_now)?.saturating_add(length);
    let quota = Quota { bytes: mailbox.quota.bytes, messages: mailbox.quota.messages };
    check_quota(settings, mailbox, &maildir, quota, size)?;
    let folder = match &settings.folder {
        Some(name) => folder(&maildir, name)?,
        None => maildir.clone(),
    };
    into(settings, message, &folder, &heading)?;
    if quota.is_limited() {
        // The message is there. A count that is off by one is put right by the next recount.
        let _ = maildir::quota::add(&maildir, i64::try_from(size).unwrap_or(i64::MAX), 1);
    }
    Ok(())
}

/// Puts the message behind `heading` into any Maildir.
pub(super) fn into(
    settings: &Settings,
    message: &Message,
    maildir: &Path,
    heading: &[u8],
) -> Result<(), End> {
    let done = maildir::deliver_on(crate::disk(settings.durability, &settings.resident), maildir, |out| {
        out.write_all(heading)?;
        message.copy_to(out)
    });
    done.map(drop).map_err(|e| match e {
        maildir::Error::DiskQuota(_) => End::Permanent(format!("{e} (#5.2.2)")),
        maildir::Error::NoMaildir(_) | maildir::Error::Temporary { .. } => {
            End::Temporary(format!("{e} (#4.3.0)"))
        }
    })
}

fn not_now(e: io::Error) -> End {
    End::Temporary(format!("cannot deliver: {e} (#4.3.0)"))
}

/// Makes home and Maildir when they are missing. They get our user and group, which are the account's.
fn prepare(maildir: &Path) -> Result<(), End> {
    let trouble = |e: io::Error| End::Temporary(format!("{}: {e} (#4.3.0)", maildir.display()));
    match std::fs::metadata(maildir) {
        Ok(meta) if meta.permissions().mode() & 0o1000 != 0 => {
            Err(End::Temporary("the mailbox is locked: its directory is sticky (#4.2.1)".to_owned()))
        }
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let home = maildir.parent().unwrap_or(Path::new("/"));
            DirBuilder::new().recursive(true).mode(0o700).create(home).map_err(trouble)?;
            maildir::make(maildir, None).map_err(trouble)
        }
        Err(e) => Err(trouble(e)),
    }
}

/// A folder of the Maildir, made when it is missing.
fn folder(maildir: &Path, name: &[u8]) -> Result<PathBuf, End> {
    let name = name.strip_prefix(b".").unwrap_or(name);
    if name.is_empty() || name.contains(&b'/') || name.starts_with(b".") {
        return Err(End::Temporary(format!(
            "MAILDIRFOLDER: {}: not the name of a folder (#4.3.5)",
            name.escape_ascii()
        )));
    }
    let mut entry = OsString::from(".");
    entry.push(OsStr::from_bytes(name));
    let path = maildir.join(entry);
    if !path.join("maildirfolder").exists() {
        maildir::make(&path, None).map_err(not_now)?;
        std::fs::write(path.join("maildirfolder"), "").map_err(not_now)?;
    }
    Ok(path)
}

fn check_quota(
    settings: &Settings,
    mailbox: &Mailbox,
    maildir: &Path,
    quota: Quota,
    size: u64,
) -> Result<(), End> {
    if !quota.is_limited() {
        return Ok(());
    }
    if mailbox.flags & FLAG_BOUNCE != 0 {
        let usage = maildir::quota::recalculate(maildir, quota, settings.quota_policy).map_err(not_now)?;
        let limit = quota.bytes.map_or(i64::MAX, |b| i64::try_from(b).unwrap_or(i64::MAX));
        if usage.bytes.saturating_add(ROOM) >= limit {
            return refuse(settings, mailbox, maildir, quota, (size, usage), Case::Locked);
        }
    }
    let now = unix::clock::unix_seconds();
    match maildir::quota::check(maildir, quota, size, now, settings.quota_policy).map_err(not_now)? {
        Verdict::Fits(_) => Ok(()),
        Verdict::Full(usage) | Verdict::Over(usage) => {
            refuse(settings, mailbox, maildir, quota, (size, usage), Case::Full)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Full,
    Locked,
}

/// The mailbox has no room: tell the site's program, then wait, let a small message pass, or bounce.
fn refuse(
    settings: &Settings,
    mailbox: &Mailbox,
    maildir: &Path,
    quota: Quota,
    (size, usage): (u64, Usage),
    case: Case,
) -> Result<(), End> {
    if settings.resident.is_some() && settings.over_quota_command.is_some() {
        return Err(End::NeedsProgram);
    }
    notify(settings, maildir, quota, (size, usage), case);
    let address = mailbox.address.escape_ascii();
    if maildir.join(&settings.hold_file).exists() {
        return Err(End::Temporary(format!("the mailbox {address} is full, mail waits (#4.2.2)")));
    }
    if case == Case::Full && size <= settings.small_message {
        return Ok(());
    }
    Err(End::Permanent(format!("the mailbox {address} is full (#5.2.2)")))
}

/// Runs the site's program. The number of its arguments tells it the case; what it says is its own.
fn notify(settings: &Settings, maildir: &Path, quota: Quota, (size, usage): (u64, Usage), case: Case) {
    let Some(command) = &settings.over_quota_command else {
        return;
    };
    let mut argv: Vec<OsString> = vec![command.into(), maildir.into()];
    argv.extend(
        [size.to_string(), usage.bytes.to_string(), usage.messages.to_string(), quota.to_string()]
            .map(OsString::from),
    );
    if case == Case::Full {
        argv.push("dummy".into());
    }
    let null = std::fs::File::open("/dev/null");
    // The verdict stands whether or not the program could be run.
    let _ = null.and_then(|null| {
        crate::shell::run_program(&argv, std::os::fd::AsFd::as_fd(&null), &settings.environment)
    });
}
