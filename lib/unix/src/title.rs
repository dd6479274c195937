//! The memory of this process's own arguments, which ps(1) shows.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The bytes of the last argument, where the kernel reads them when somebody asks.
#[derive(Debug)]
pub struct LastArgument {
    address: usize,
    length: usize,
}

impl LastArgument {
    /// Finds it; `expected` is the last argument as the program was given it.
    ///
    /// # Errors
    /// /proc does not say where the arguments are, or something else is there.
    pub fn find(expected: &OsStr) -> io::Result<Self> {
        let stat = std::fs::read("/proc/self/stat")?;
        let unknown =
            || io::Error::new(io::ErrorKind::InvalidData, "/proc does not say where the arguments are");
        let (start, end) = argument_area(&stat).ok_or_else(unknown)?;
        let length = expected.len();
        // The area ends with the NUL of the last argument.
        let address =
            end.checked_sub(length + 1).filter(|&at| at >= start && start != 0).ok_or_else(unknown)?;
        let found = Self { address, length };
        let mut there = vec![0u8; length + 1];
        // SAFETY: the kernel says that these bytes are arguments of this process; they stay mapped and
        // readable for as long as it lives. The copy goes to a buffer of the same length.
        unsafe { std::ptr::copy_nonoverlapping(found.pointer(), there.as_mut_ptr(), length + 1) };
        if there.split_last() == Some((&0, expected.as_bytes())) { Ok(found) } else { Err(unknown()) }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// Replaces the bytes; what is longer is cut, what is shorter leaves the rest as it was.
    pub fn write(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.length);
        // SAFETY: `find` has made sure that an argument of `length` bytes and a NUL is there. The stack
        // of a process is writable. Nothing in Rust refers to these bytes: the standard library copies
        // arguments when it is asked for them. The NUL stays.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.pointer(), count) };
    }

    fn pointer(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address)
    }
}

/// Fields 48 and 49 of a line of /proc/PID/stat: start and end of the arguments.
fn argument_area(stat: &[u8]) -> Option<(usize, usize)> {
    let close = stat.iter().rposition(|&b| b == b')')?;
    // After the name comes field 3.
    let mut fields = stat.get(close + 1..)?.split(|b| b.is_ascii_whitespace()).filter(|f| !f.is_empty());
    let mut number = |skip| std::str::from_utf8(fields.nth(skip)?).ok()?.parse().ok();
    Some((number(45)?, number(0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn area() {
        let mut line = b"7 (a) b) S".to_vec();
        for n in 4..=52 {
            line.extend(format!(" {n}00").bytes());
        }
        line.push(b'\n');
        assert_eq!(argument_area(&line), Some((4800, 4900)));
        assert_eq!(argument_area(b"7 (a) S 1 2"), None);
        assert_eq!(argument_area(b""), None);
    }

    #[test]
    fn only_what_is_expected_is_taken() {
        let last = std::env::args_os().last().unwrap();
        let mut found = LastArgument::find(&last).unwrap();
        assert_eq!(found.length(), last.len());
        found.write(last.as_bytes());
        assert_eq!(std::env::args_os().last().unwrap(), last);
        assert!(LastArgument::find(OsStr::new("something else")).is_err());
        assert!(LastArgument::find(OsStr::new(&"x".repeat(10_000_000))).is_err());
    }
}
