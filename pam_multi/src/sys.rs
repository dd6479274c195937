//! Functions of libpam that pam-bindings has no name for.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

use pam::constants::PamResultCode as Code;
use pam::module::PamHandle;

use crate::decision::Secret;

/// PAM_AUTHTOK
const AUTHTOK: c_int = 6;

unsafe extern "C" {
    fn pam_get_user(handle: *mut PamHandle, user: *mut *const c_char, prompt: *const c_char) -> c_int;
    fn pam_set_item(handle: *mut PamHandle, item: c_int, value: *const c_void) -> c_int;
    fn pam_fail_delay(handle: *mut PamHandle, microseconds: c_uint) -> c_int;
    fn pam_syslog(handle: *const PamHandle, priority: c_int, format: *const c_char, ...);
}

/// The login name as bytes. (pam-bindings wants UTF-8 and answers PAM_SYSTEM_ERR without it.)
pub(crate) fn get_user(handle: &mut PamHandle) -> Result<Vec<u8>, Code> {
    let mut user: *const c_char = std::ptr::null();
    // SAFETY: the handle is live for this call; libpam keeps the string it points `user` to.
    let code = unsafe { pam_get_user(handle, &raw mut user, std::ptr::null()) };
    done(code)?;
    if user.is_null() {
        return Err(Code::PAM_USER_UNKNOWN);
    }
    // SAFETY: libpam set it to a NUL-terminated string that lives until PAM_USER changes.
    Ok(unsafe { CStr::from_ptr(user) }.to_bytes().to_vec())
}

/// Stores PAM_AUTHTOK; libpam makes its own copy. (pam-bindings cannot make that item.)
pub(crate) fn set_authtok(handle: &mut PamHandle, password: &Secret) -> Result<(), Code> {
    let mut terminated = Secret::new(Vec::with_capacity(password.len() + 1));
    terminated.extend_from_slice(password);
    terminated.push(0);
    // SAFETY: the handle is live, the value is NUL-terminated and copied before the call returns.
    done(unsafe { pam_set_item(handle, AUTHTOK, terminated.as_ptr().cast()) })
}

/// Asks libpam to wait should authentication fail.
pub(crate) fn fail_delay(handle: &mut PamHandle, microseconds: u32) {
    // SAFETY: the handle is live; libpam only notes the number.
    unsafe { pam_fail_delay(handle, microseconds) };
}

/// Writes a line to the system log under the module's and the service's name.
pub(crate) fn syslog(handle: &PamHandle, priority: c_int, text: &str) {
    let Ok(text) = CString::new(text) else { return };
    // SAFETY: the handle is live, the format takes one string and gets one.
    unsafe { pam_syslog(handle, priority, c"%s".as_ptr(), text.as_ptr()) };
}

fn done(code: c_int) -> Result<(), Code> {
    match Code::try_from(code).unwrap_or(Code::PAM_SYSTEM_ERR) {
        Code::PAM_SUCCESS => Ok(()),
        other => Err(other),
    }
}
