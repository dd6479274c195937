//! crypt(3) of the C library (libxcrypt): the one place of this crate that calls foreign code.
#![allow(unsafe_code, reason = "the foreign call itself")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use zeroize::Zeroizing;

use crate::{SecretBytes, Unavailable};

/// Size of `struct crypt_data` of libxcrypt, part of its stable interface.
const DATA_SIZE: usize = 32_768;

#[link(name = "crypt")]
unsafe extern "C" {
    fn crypt_rn(phrase: *const c_char, setting: *const c_char, data: *mut c_void, size: c_int)
    -> *mut c_char;
}

/// The hash of `password` under `setting`; `None` when the setting is not one the library can use. The
/// password, all intermediate values and the work area are wiped.
///
/// # Errors
/// Memory ran out.
pub(super) fn crypt(password: &[u8], setting: &[u8]) -> Result<Option<SecretBytes>, Unavailable> {
    let Ok(setting) = CString::new(setting) else {
        return Ok(None);
    };
    if password.contains(&0) {
        return Ok(None);
    }
    let phrase = Zeroizing::new([password, b"\0"].concat());
    // Of 16-byte words, so that it is as aligned as any C object may ask for.
    let mut area = Zeroizing::new(vec![0u128; DATA_SIZE / size_of::<u128>()]);
    let size = c_int::try_from(DATA_SIZE).unwrap_or(0);
    // SAFETY: both strings end with NUL and live through the call; the area is `size` bytes, writable,
    // zeroed as the library asks, aligned for any type, and used by this call alone. With its size given
    // the library writes nowhere else, and it keeps no pointer.
    let result =
        unsafe { crypt_rn(phrase.as_ptr().cast(), setting.as_ptr(), area.as_mut_ptr().cast(), size) };
    if result.is_null() {
        let error = std::io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOMEM) => Err(Unavailable::new("crypt", error)),
            _ => Ok(None),
        };
    }
    // SAFETY: not null, so it is a NUL-terminated string inside the area, which is still alive.
    let hash = unsafe { CStr::from_ptr(result) }.to_bytes();
    // "*0" and "*1" are how crypt says no; a hash never begins with a star.
    Ok((!hash.is_empty() && hash[0] != b'*').then(|| hash.into()))
}
