//! Terminals: is there one, and how large is it.

use std::os::fd::{AsFd, AsRawFd};

/// Rows and columns of the terminal behind a descriptor; `None` when there is no terminal or it does
/// not know.
#[must_use]
pub fn size(fd: impl AsFd) -> Option<(usize, usize)> {
    // SAFETY: winsize is plain data for which all zeroes is a valid value.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one winsize to where the pointer leads.
    let done = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    let known = done == 0 && size.ws_row > 0 && size.ws_col > 0;
    known.then(|| (usize::from(size.ws_row), usize::from(size.ws_col)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_terminal_and_of_none() {
        let size_is = nix::pty::Winsize { ws_row: 7, ws_col: 33, ws_xpixel: 0, ws_ypixel: 0 };
        let both = nix::pty::openpty(Some(&size_is), None).unwrap();
        assert_eq!(size(&both.slave), Some((7, 33)));
        assert_eq!(size(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
