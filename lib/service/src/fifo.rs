//! FIFOs: the way operators talk to a service.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::Mode;

/// Makes the FIFO unless it is there already, whoever owns it.
///
/// # Errors
/// Something that is not a FIFO is in its place, or as mkfifo(3).
pub fn make(path: &Path) -> io::Result<()> {
    match nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600)) {
        Ok(()) => Ok(()),
        Err(Errno::EEXIST) if std::fs::metadata(path)?.file_type().is_fifo() => Ok(()),
        Err(Errno::EEXIST) => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "exists and is not a fifo; remove it"))
        }
        Err(e) => Err(e.into()),
    }
}

/// Opens the reading end, without waiting for a writer.
///
/// # Errors
/// As open(2).
pub fn reader(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Opens the writing end; `Ok(None)` when nobody reads or there is no such FIFO.
///
/// # Errors
/// As open(2), ENXIO and ENOENT excepted.
pub fn writer(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENXIO | libc::ENOENT)) => Ok(None),
        Err(e) => Err(e),
    }
}
