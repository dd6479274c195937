//! One message into one Maildir.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use unix::durable::{Disk, Durability};

use crate::name::Unique;

/// Names tried before giving up; a taken one means that a clock went back.
const TRIES: u32 = 3;
const BUFFER: usize = 64 * 1024;

/// A delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The file in `new`.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a message is not in the Maildir. Nothing of it is left there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no Maildir with this name.
    #[error("no maildir {}", .0.display())]
    NoMaildir(PathBuf),
    /// The file system's own quota is used up.
    #[error("disk quota of the owner of {} is used up", .0.display())]
    DiskQuota(PathBuf),
    /// Not this time: full disk, no permission, trouble reading the message.
    #[error("{}: {what}: {source}", maildir.display())]
    Temporary {
        /// The Maildir.
        maildir: PathBuf,
        /// The step.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Puts what `write` writes into the Maildir `maildir` as a new message with mode 0600.
///
/// When this returns `Ok`, the message survives a power cut (as far as `durability` asks for it).
///
/// # Errors
/// See [`Error`]; the Maildir is as it was before.
pub fn deliver(
    maildir: &Path,
    durability: Durability,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Delivered, Error> {
    deliver_on(Disk::new(durability), maildir, write)
}

/// As [`deliver`], on a disk of the caller's: one that several threads wait for together, for instance.
///
/// | step | if the machine stops right after |
/// |---|---|
/// | `tmp/NAME` is created and written | litter in `tmp` |
/// | its contents are forced out, alone or with those of others | litter in `tmp` |
/// | `new/NAME` is linked | the message is in `new` whole, or not at all |
/// | the directory `new` is forced out, alone or with those of others | it is there for good |
/// | `tmp/NAME` is removed | done |
///
/// # Errors
/// As [`deliver`].
pub fn deliver_on(
    disk: Disk<'_>,
    maildir: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Delivered, Error> {
    let failed = |what: &'static str| {
        move |source: io::Error| match source.raw_os_error() {
            Some(libc::EDQUOT) => Error::DiskQuota(maildir.to_path_buf()),
            _ => Error::Temporary { maildir: maildir.to_path_buf(), what, source },
        }
    };
    let (unique, file, temporary) = begin(disk, maildir).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound {
            return Error::NoMaildir(maildir.to_path_buf());
        }
        failed("create a file in tmp")(e)
    })?;
    let written = fill(disk, &temporary, file, write);
    let (inode, device, size) = written.map_err(|e| {
        // The error that matters is the first one; a leftover in tmp is harmless.
        let _ = disk.unlink(&temporary);
        failed("write the message")(e)
    })?;
    let path = maildir.join("new").join(unique.delivered(inode, device, size));
    disk.publish(&temporary, &path).map_err(failed("link the message into new"))?;
    Ok(Delivered { path, size })
}

fn begin(disk: Disk<'_>, maildir: &Path) -> io::Result<(Unique, File, PathBuf)> {
    let mut tries = 0;
    loop {
        let unique = Unique::next();
        let temporary = maildir.join("tmp").join(unique.temporary());
        match disk.create_new(&temporary, 0o600) {
            Ok(file) => return Ok((unique, file, temporary)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
            Err(e) => return Err(e),
        }
    }
}

fn fill(
    disk: Disk<'_>,
    path: &Path,
    file: File,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<(u64, u64, u64)> {
    let mut buffered = io::BufWriter::with_capacity(BUFFER, Writer { disk, path, file });
    write(&mut buffered)?;
    let file = buffered.into_inner().map_err(io::IntoInnerError::into_error)?.file;
    disk.sync_file(path, &file)?;
    let meta = file.metadata()?;
    Ok((meta.ino(), meta.dev(), meta.len()))
}

/// A file that is written through the disk.
struct Writer<'a> {
    disk: Disk<'a>,
    path: &'a Path,
    file: File,
}

impl Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(self.path, &mut self.file, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use unix::durable::{Faults, Step};
    use unix::gather::{ENOUGH, Gather};

    fn maildir() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        crate::make(dir.path(), None).unwrap();
        dir
    }

    fn entries(dir: &Path, sub: &str) -> Vec<PathBuf> {
        std::fs::read_dir(dir.join(sub)).unwrap().map(|e| e.unwrap().path()).collect()
    }

    #[test]
    fn message_is_in_new_whole_with_its_size_in_the_name() {
        let dir = maildir();
        let done =
            deliver(dir.path(), Durability::default(), |out| out.write_all(b"Subject: x\n\n")).unwrap();
        assert_eq!(entries(dir.path(), "new"), std::slice::from_ref(&done.path));
        assert!(entries(dir.path(), "tmp").is_empty());
        assert_eq!(std::fs::read(&done.path).unwrap(), b"Subject: x\n\n");
        assert!(done.path.to_str().unwrap().ends_with(",S=12"));
        assert_eq!(std::fs::metadata(&done.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn failure_while_writing_leaves_nothing() {
        let dir = maildir();
        let error = deliver(dir.path(), Durability::default(), |out| {
            out.write_all(&[b'x'; 200_000])?;
            Err(io::Error::other("source"))
        });
        assert!(matches!(error, Err(Error::Temporary { what: "write the message", .. })));
        assert!(entries(dir.path(), "new").is_empty() && entries(dir.path(), "tmp").is_empty());
    }

    #[test]
    fn failure_while_linking_leaves_nothing() {
        let dir = maildir();
        std::fs::remove_dir(dir.path().join("new")).unwrap();
        let error = deliver(dir.path(), Durability::default(), |out| out.write_all(b"x"));
        assert!(matches!(error, Err(Error::Temporary { .. })));
        assert!(entries(dir.path(), "tmp").is_empty());
    }

    #[test]
    fn missing_maildir_and_disk_quota_are_told_apart() {
        let error = deliver(Path::new("/nonexistent"), Durability::default(), |_| Ok(()));
        assert!(matches!(error, Err(Error::NoMaildir(_))));
        let dir = maildir();
        let edquot = |_: &mut dyn Write| Err(io::Error::from_raw_os_error(libc::EDQUOT));
        assert!(matches!(deliver(dir.path(), Durability::default(), edquot), Err(Error::DiskQuota(_))));
        let enospc = |_: &mut dyn Write| Err(io::Error::from_raw_os_error(libc::ENOSPC));
        assert!(matches!(deliver(dir.path(), Durability::default(), enospc), Err(Error::Temporary { .. })));
    }

    #[test]
    fn a_planted_link_in_tmp_is_not_followed() {
        let dir = maildir();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, dir.path().join("tmp/x")).unwrap();
        assert_eq!(
            unix::durable::create_new(&dir.path().join("tmp/x"), 0o600).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }

    /// Fails at the step with this number: once, or from there on, as when the machine stops.
    struct At {
        step: usize,
        stops: bool,
        seen: std::sync::Mutex<Vec<Step>>,
    }

    impl Faults for At {
        fn before(&self, step: Step, _: &Path) -> io::Result<()> {
            let mut seen = self.seen.lock().unwrap();
            seen.push(step);
            let now = seen.len();
            let fails = if self.stops { now > self.step } else { now == self.step + 1 };
            if fails { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
        }
    }

    /// `together`: others are at work, so the wait is shared.
    fn with_fault(
        dir: &Path,
        step: usize,
        stops: bool,
        together: bool,
    ) -> (Result<Delivered, Error>, Vec<Step>) {
        let faults = At { step, stops, seen: std::sync::Mutex::default() };
        let gather = Gather::default();
        let _others: Vec<_> = (0..ENOUGH).map(|_| gather.begin()).collect();
        let disk = Disk::with_faults(Durability::default(), &faults);
        let disk = if together { disk.gathering(&gather) } else { disk };
        let result = deliver_on(disk, dir, |out| out.write_all(&[b'x'; 3 * BUFFER]));
        (result, faults.seen.into_inner().unwrap())
    }

    #[test]
    fn steps_come_in_the_order_that_loses_nothing() {
        for together in [false, true] {
            let dir = maildir();
            let (result, mut steps) = with_fault(dir.path(), 1000, false, together);
            result.unwrap();
            steps.dedup();
            assert_eq!(
                steps,
                [Step::Create, Step::Write, Step::SyncFile, Step::Link, Step::SyncDirectory, Step::Unlink]
            );
        }
    }

    #[test]
    fn whatever_step_fails_the_message_is_there_whole_or_not_at_all() {
        for (stops, together) in [(false, false), (true, false), (false, true), (true, true)] {
            for step in 0..12 {
                let dir = maildir();
                let (result, _) = with_fault(dir.path(), step, stops, together);
                let new = entries(dir.path(), "new");
                for path in &new {
                    assert_eq!(std::fs::metadata(path).unwrap().len(), 3 * BUFFER as u64, "step {step}");
                }
                match result {
                    Ok(done) => assert_eq!(new, [done.path], "step {step}"),
                    // A machine that stops between link and the answer may leave the message in new:
                    // it comes a second time then, which is better than not at all.
                    Err(_) if stops => assert!(new.len() <= 1),
                    Err(_) => assert!(new.is_empty() && entries(dir.path(), "tmp").is_empty(), "step {step}"),
                }
            }
        }
    }

    /// Many at a time, one of them on a full disk: the others do not notice, and all is whole.
    #[test]
    fn those_who_wait_together_fail_each_for_himself() {
        let (dir, gather) = (maildir(), Gather::default());
        let results: Vec<_> = std::thread::scope(|scope| {
            let one = |number: usize| {
                let (dir, gather) = (dir.path(), &gather);
                scope.spawn(move || {
                    let _at_work = gather.begin();
                    let disk = Disk::new(Durability::default()).gathering(gather);
                    deliver_on(disk, dir, |out| {
                        out.write_all(&vec![b'x'; 1000 + number])?;
                        if number == 7 { Err(io::Error::from_raw_os_error(libc::ENOSPC)) } else { Ok(()) }
                    })
                })
            };
            let threads: Vec<_> = (0..20).map(one).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|r| r.is_err()).count(), 1);
        assert!(matches!(&results[7], Err(Error::Temporary { .. })));
        let mut sizes: Vec<u64> =
            entries(dir.path(), "new").iter().map(|p| std::fs::metadata(p).unwrap().len()).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, (1000..1020).filter(|&s| s != 1007).collect::<Vec<_>>());
        assert!(entries(dir.path(), "tmp").is_empty());
    }
}
