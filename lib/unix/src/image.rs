//! A program prepared once and become many times, in copies of this process.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use crate::spawn::strings;

/// Changes to an environment: a value, or removal.
pub type Changes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Arguments and environment of a program, as exec(2) wants them: between fork and exec only what differs from
/// one time to the next is left to do.
#[derive(Debug)]
pub struct Image {
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Image {
    /// Prepares a program; the first argument is its name.
    ///
    /// # Errors
    /// A string holds a NUL.
    pub fn new<'a>(
        argv: impl Iterator<Item = &'a OsStr>,
        environment: impl Iterator<Item = (&'a OsStr, &'a OsStr)>,
    ) -> io::Result<Self> {
        let argv = strings(argv.map(|arg| arg.as_bytes().to_vec()))?;
        let environment = strings(environment.map(|(n, v)| assignment(n.as_bytes(), v.as_bytes())))?;
        Ok(Self { argv, environment })
    }

    /// Replaces this process by the program in `file`, with these changes to its environment; returns only on
    /// failure. Signal actions and mask are left as they are.
    pub fn replace(&self, file: &Path, changes: &Changes) -> io::Error {
        let own = strings(changes.iter().filter_map(|(n, v)| Some(assignment(n, v.as_deref()?))));
        let (own, file) = match (own, CString::new(file.as_os_str().as_bytes())) {
            (Ok(own), Ok(file)) => (own, file),
            (Err(e), _) => return e,
            (_, Err(e)) => return e.into(),
        };
        let stays = |assignment: &&CString| {
            let name = assignment.as_bytes().split(|&b| b == b'=').next().unwrap_or_default();
            !changes.contains_key(name)
        };
        let null = ptr::null::<libc::c_char>();
        let argv: Vec<_> = self.argv.iter().map(|s| s.as_ptr()).chain([null]).collect();
        let environment: Vec<_> =
            self.environment.iter().filter(stays).chain(&own).map(|s| s.as_ptr()).chain([null]).collect();
        // SAFETY: NUL-terminated strings that live until the call returns, in vectors that end with null.
        unsafe { libc::execve(file.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
        io::Error::last_os_error()
    }
}

fn assignment(name: &[u8], value: &[u8]) -> Vec<u8> {
    [name, b"=", value].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_started_comes_back() {
        let argv = [OsStr::new("x")];
        let image = Image::new(argv.into_iter(), std::iter::empty()).unwrap();
        let error = image.replace(Path::new("/nonexistent/x"), &Changes::new());
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
        let changes = Changes::from([(b"A".to_vec(), Some(b"a\0b".to_vec()))]);
        assert_eq!(image.replace(Path::new("/bin/true"), &changes).kind(), io::ErrorKind::InvalidInput);
        assert!(Image::new([OsStr::new("a\0b")].into_iter(), std::iter::empty()).is_err());
    }
}
