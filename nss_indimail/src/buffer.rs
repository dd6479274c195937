//! Records in the caller's buffer: everything inside it, pointers aligned, all or nothing.

use std::ffi::c_char;
use std::mem::{align_of, size_of};
use std::ptr;

use libnss::group::Group;
use libnss::passwd::Passwd;
use libnss::shadow::Shadow;

/// The buffer is too small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall;

/// What is left of a caller's buffer.
#[derive(Debug)]
pub struct Buffer {
    next: *mut c_char,
    left: usize,
}

impl Buffer {
    /// A caller's buffer; a null one has no room.
    ///
    /// # Safety
    /// `start` is null or points to `length` bytes that nobody else uses as long as this lives.
    #[must_use]
    pub unsafe fn new(start: *mut c_char, length: usize) -> Self {
        Self { next: start, left: if start.is_null() { 0 } else { length } }
    }

    /// Puts a string there, with its NUL; it ends at a NUL of its own.
    fn string(&mut self, text: &str) -> Result<*mut c_char, TooSmall> {
        let bytes = text.as_bytes();
        let bytes = bytes.split(|&b| b == 0).next().unwrap_or_default();
        let at = self.take(bytes.len().checked_add(1).ok_or(TooSmall)?)?;
        // SAFETY: `take` gave us bytes.len() + 1 bytes of the caller's buffer at `at`; the source is a
        // slice and cannot overlap a buffer that only we write.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr().cast::<c_char>(), at, bytes.len());
            at.add(bytes.len()).write(0);
        }
        Ok(at)
    }

    /// Puts bytes there.
    fn bytes(&mut self, parts: &[&[u8]]) -> Result<*mut c_char, TooSmall> {
        let at = self.next;
        for part in parts {
            let to = self.take(part.len())?;
            // SAFETY: `take` gave us so many bytes at `to`, in a buffer that only we write.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr().cast::<c_char>(), to, part.len()) };
        }
        Ok(at)
    }

    /// Puts a list of strings there: an aligned array of pointers, the last one null.
    fn list(&mut self, texts: &[String]) -> Result<*mut *mut c_char, TooSmall> {
        let skip = self.next.align_offset(align_of::<*mut c_char>());
        self.take(skip)?;
        let count = texts.len().checked_add(1).ok_or(TooSmall)?;
        let array = self.take(count.checked_mul(size_of::<*mut c_char>()).ok_or(TooSmall)?)?;
        let array = array.cast::<*mut c_char>();
        for (n, text) in texts.iter().enumerate() {
            let string = self.string(text)?;
            // SAFETY: `array` is aligned (see `skip`) and has room for `count` > n pointers.
            unsafe { array.add(n).write(string) };
        }
        // SAFETY: as above; texts.len() is the last of the `count` places.
        unsafe { array.add(texts.len()).write(ptr::null_mut()) };
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<*mut c_char, TooSmall> {
        self.left = self.left.checked_sub(length).ok_or(TooSmall)?;
        let at = self.next;
        // SAFETY: `length` bytes were left from here on (checked above), so the end stays in the
        // buffer or one past it.
        self.next = unsafe { at.add(length) };
        Ok(at)
    }
}

/// A record that can be put into a caller's structure.
pub trait Record {
    /// The C structure.
    type C;

    /// Puts the strings into the buffer and returns the structure that points to them.
    ///
    /// # Errors
    /// The buffer is too small.
    fn put(&self, buffer: &mut Buffer) -> Result<Self::C, TooSmall>;
}

impl Record for Passwd {
    type C = libc::passwd;

    fn put(&self, buffer: &mut Buffer) -> Result<libc::passwd, TooSmall> {
        Ok(libc::passwd {
            pw_name: buffer.string(&self.name)?,
            pw_passwd: buffer.string(&self.passwd)?,
            pw_uid: self.uid,
            pw_gid: self.gid,
            pw_gecos: buffer.string(&self.gecos)?,
            pw_dir: buffer.string(&self.dir)?,
            pw_shell: buffer.string(&self.shell)?,
        })
    }
}

impl Record for snapshot::User {
    type C = libc::passwd;

    fn put(&self, buffer: &mut Buffer) -> Result<libc::passwd, TooSmall> {
        let name = buffer.bytes(&[self.name(), self.tail()])?;
        // The tail: NUL, `x`, NUL, comment, NUL, home, NUL, shell, NUL.
        let after = |at: *mut c_char, length: usize| at.wrapping_add(length).wrapping_add(1);
        let password = after(name, self.name().len());
        let gecos = after(password, 1);
        let home = after(gecos, self.gecos().len());
        Ok(libc::passwd {
            pw_name: name,
            pw_passwd: password,
            pw_uid: self.uid(),
            pw_gid: self.gid(),
            pw_gecos: gecos,
            pw_dir: home,
            pw_shell: after(home, self.home().len()),
        })
    }
}

impl Record for snapshot::Group {
    type C = libc::group;

    fn put(&self, buffer: &mut Buffer) -> Result<libc::group, TooSmall> {
        let name = buffer.bytes(&[self.name(), b"\0x\0"])?;
        Ok(libc::group {
            gr_name: name,
            gr_passwd: name.wrapping_add(self.name().len()).wrapping_add(1),
            gr_gid: self.gid(),
            gr_mem: buffer.list(&[])?,
        })
    }
}

impl Record for Group {
    type C = libc::group;

    fn put(&self, buffer: &mut Buffer) -> Result<libc::group, TooSmall> {
        Ok(libc::group {
            gr_name: buffer.string(&self.name)?,
            gr_passwd: buffer.string(&self.passwd)?,
            gr_gid: self.gid,
            gr_mem: buffer.list(&self.members)?,
        })
    }
}

impl Record for Shadow {
    type C = libc::spwd;

    fn put(&self, buffer: &mut Buffer) -> Result<libc::spwd, TooSmall> {
        let days = |d: isize| libc::c_long::try_from(d).unwrap_or(-1);
        Ok(libc::spwd {
            sp_namp: buffer.string(&self.name)?,
            sp_pwdp: buffer.string(&self.passwd)?,
            sp_lstchg: days(self.last_change),
            sp_min: days(self.change_min_days),
            sp_max: days(self.change_max_days),
            sp_warn: days(self.change_warn_days),
            sp_inact: days(self.change_inactive_days),
            sp_expire: days(self.expire_date),
            sp_flag: libc::c_ulong::try_from(self.reserved).unwrap_or(libc::c_ulong::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn group(name_length: usize) -> Group {
        let members = vec!["first@example.org".to_owned(), "second@example.org".to_owned()];
        Group { name: "g".repeat(name_length), passwd: "x".into(), gid: 5, members }
    }

    #[test]
    fn pointer_lists_are_aligned_whatever_the_name_and_the_buffer() {
        let mut memory = [0u64; 64];
        for offset in 0..8 {
            for name_length in 0..100 {
                let start = memory.as_mut_ptr().cast::<c_char>();
                // SAFETY: offset is inside the array, and the length leaves it out.
                let mut buffer = unsafe { Buffer::new(start.add(offset), 512 - offset) };
                let out = group(name_length).put(&mut buffer).unwrap();
                assert_eq!(out.gr_mem as usize % 8, 0);
                // SAFETY: the list was just made with two members and a null.
                unsafe {
                    assert_eq!(CStr::from_ptr(*out.gr_mem.add(1)).to_bytes(), b"second@example.org");
                    assert!((*out.gr_mem.add(2)).is_null());
                }
            }
        }
    }

    #[test]
    fn every_size_below_the_needed_one_is_too_small_and_nothing_is_written_past_it() {
        let user = Passwd {
            name: "a@b".into(),
            passwd: "x".into(),
            uid: 1,
            gid: 2,
            gecos: "A B".into(),
            dir: "/home/a".into(),
            shell: "/bin/sh".into(),
        };
        let needed = 4 + 2 + 4 + 8 + 8;
        for length in 0..64 {
            let mut memory = [0x55u8; 80];
            // SAFETY: the array is longer than `length`.
            let mut buffer = unsafe { Buffer::new(memory.as_mut_ptr().cast(), length) };
            assert_eq!(user.put(&mut buffer).is_ok(), length >= needed, "{length}");
            assert!(memory[length..].iter().all(|&b| b == 0x55), "{length}");
        }
        // SAFETY: a null buffer is allowed.
        let mut none = unsafe { Buffer::new(ptr::null_mut(), 4096) };
        assert_eq!(user.put(&mut none).err(), Some(TooSmall));
    }

    #[test]
    fn a_nul_ends_a_string_and_hurts_nobody() {
        let mut memory = [0u8; 16];
        // SAFETY: the length is the array's.
        let mut buffer = unsafe { Buffer::new(memory.as_mut_ptr().cast(), 16) };
        let at = buffer.string("ab\0cd").unwrap();
        // SAFETY: just written.
        assert_eq!(unsafe { CStr::from_ptr(at) }.to_bytes(), b"ab");
    }
}
