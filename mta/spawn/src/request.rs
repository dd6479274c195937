//! What must be true of a request before anything is started for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use mta_queue::spawn_protocol::{Request, Verdict};
use unix::Uid;

/// A delivery that may be tried.
#[derive(Debug)]
pub struct Delivery {
    /// Message name below `mess`.
    pub message: Vec<u8>,
    /// The message, open at its beginning.
    pub file: File,
    /// Its size in bytes.
    pub size: u64,
    /// Envelope sender.
    pub sender: Vec<u8>,
    /// Recipient, before the last `@`.
    pub local: Vec<u8>,
    /// Recipient, after the last `@`.
    pub domain: Vec<u8>,
    /// Header lines to put before the message.
    pub extra_header: Vec<u8>,
    /// Header lines to export.
    pub exported: Vec<u8>,
}

impl Delivery {
    /// The whole recipient.
    #[must_use]
    pub fn recipient(&self) -> Vec<u8> {
        [&self.local[..], b"@", &self.domain].concat()
    }
}

/// A verdict with its text.
pub type Answer = (Verdict, Vec<u8>);

/// A deferral.
#[must_use]
pub fn defer(text: impl AsRef<[u8]>) -> Answer {
    (Verdict::Deferral, text.as_ref().to_vec())
}

/// A failure for good.
#[must_use]
pub fn fail(text: impl AsRef<[u8]>) -> Answer {
    (Verdict::Failure, text.as_ref().to_vec())
}

/// Checks a request (its number is the caller's business) and opens the message below `mess`.
///
/// `owner` is who must own message files: a spawner that runs as root must not be talked into
/// delivering other people's files.
///
/// # Errors
/// The report to send instead.
pub fn check(request: Request, mess: &Path, owner: Uid) -> Result<Delivery, Answer> {
    let name = std::str::from_utf8(&request.message).ok().filter(|n| is_message_name(n));
    let Some(name) = name else {
        return Err(fail("the sender named a message in a way that makes no sense (#5.3.5)\n"));
    };
    let Some(at) = request.recipient.iter().rposition(|&b| b == b'@') else {
        return Err(fail("the recipient has no domain (#5.1.3)\n"));
    };
    let path = mess.join(name);
    // A queue entry is never a link; a pipe in its place must not hang us.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(&path);
    let file = opened.map_err(|e| defer(format!("cannot open message {name}: {e} (#4.3.0)\n")))?;
    let meta =
        file.metadata().map_err(|e| defer(format!("cannot look at message {name}: {e} (#4.3.0)\n")))?;
    if !meta.is_file() {
        return Err(defer(format!("message {name} is not a plain file (#4.3.5)\n")));
    }
    if meta.uid() != owner.as_raw() {
        return Err(defer(format!("message {name} does not belong to the queue's owner (#4.3.5)\n")));
    }
    unix::fd::set_nonblocking(&file, false).map_err(|e| defer(format!("message {name}: {e} (#4.3.0)\n")))?;
    Ok(Delivery {
        file,
        size: meta.size(),
        sender: request.sender,
        local: request.recipient[..at].to_vec(),
        domain: request.recipient[at + 1..].to_vec(),
        extra_header: request.extra_header,
        exported: request.exported,
        message: request.message,
    })
}

/// `N/id` or `id`, both decimal.
fn is_message_name(name: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('/').count() <= 2 && name.split('/').all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(message: &str, recipient: &str) -> Request {
        Request { message: message.into(), recipient: recipient.into(), ..Request::default() }
    }

    fn letter(message: &str, recipient: &str, dir: &Path, owner: Uid) -> char {
        match check(request(message, recipient), dir, owner) {
            Ok(_) => 'K',
            Err((verdict, text)) => {
                assert!(text.ends_with(b")\n"), "{}", text.escape_ascii());
                char::from(verdict.letter())
            }
        }
    }

    #[test]
    fn every_check_has_its_letter() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        let me = unix::Uid::current();
        std::fs::create_dir_all(at("7/8")).unwrap();
        std::fs::write(at("7/5"), "message").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", at("7/6")).unwrap();
        nix::unistd::mkfifo(&at("7/9"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let got = |m: &str, r: &str| letter(m, r, dir.path(), me);
        assert_eq!(got("7/5", "a@b"), 'K');
        for name in ["7/../7/5", "/7/5", "7//5", "", "x", "7/5x", "7/5/"] {
            assert_eq!(got(name, "a@b"), 'D', "{name}");
        }
        assert_eq!(got("7/5", "a"), 'D');
        for name in ["7/4", "7/6", "7/8", "7/9"] {
            assert_eq!(got(name, "a@b"), 'Z', "{name}");
        }
        assert_eq!(letter("7/5", "a@b", dir.path(), Uid::from_raw(me.as_raw() + 1)), 'Z');
    }

    #[test]
    fn the_last_at_sign_splits() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("5"), "12345").unwrap();
        let d = check(request("5", "a@b@c"), dir.path(), Uid::current()).unwrap();
        assert_eq!((&d.local[..], &d.domain[..], d.size), (&b"a@b"[..], &b"c"[..], 5));
        assert_eq!(d.recipient(), b"a@b@c");
    }
}
