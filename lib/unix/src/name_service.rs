//! This process and the NSS module of this project.

use std::ffi::{CStr, c_int};

const MODULE: &CStr = c"libnss_indimail.so.2";
const BLOCK: &CStr = c"_nss_indimail_block";

/// Tells the NSS module to answer "no such name" at once in this process, for daemons that the
/// module would ask: they must not wait for themselves. True when the module is installed (and now
/// knows); without it there is nothing to tell.
///
/// Call it before the first look-up by name and before threads are started.
pub fn leave_out_own_module() -> bool {
    // SAFETY: both strings are C strings. The module runs no code when it is loaded and is linked
    // to stay loaded, so the symbol stays valid; its type is the one that the module exports.
    unsafe {
        let module = libc::dlopen(MODULE.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if module.is_null() {
            return false;
        }
        let block = libc::dlsym(module, BLOCK.as_ptr());
        if block.is_null() {
            return false;
        }
        let block: extern "C" fn(c_int) = std::mem::transmute(block);
        block(1);
    }
    true
}
