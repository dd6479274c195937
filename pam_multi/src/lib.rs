//! PAM module: login with the mail password.
//!
//! ```text
//! sshd, su, Dovecot ─► libpam ─► pam_multi.so ── Unix socket ──► inlookup ─► accounts
//!                                arguments ─► decision (Host, Backend) ─► PAM code
//! ```
//!
//! The module passes login name, password, service and remote host on to inlookup and turns the
//! answer into a PAM code; it never sees a hash. What it may do to the process it lives in is little:
//! no threads, no signals, no environment, no stdio, no descriptor kept between calls, every wait
//! under one deadline, and a panic becomes `PAM_AUTHINFO_UNAVAIL` here.
//!
//! | answer of inlookup | authenticate | account |
//! |---|---|---|
//! | granted | SUCCESS | SUCCESS |
//! | no such account | USER_UNKNOWN | USER_UNKNOWN |
//! | wrong password | AUTH_ERR | - |
//! | disabled (password right) | PERM_DENIED | PERM_DENIED |
//! | expired (password right) | ACCT_EXPIRED | ACCT_EXPIRED |
//! | password expired | SUCCESS (the account phase tells) | NEW_AUTHTOK_REQD |
//! | too many failures | MAXTRIES | - |
//! | no answer | AUTHINFO_UNAVAIL | AUTHINFO_UNAVAIL |
//! | no memory | BUF_ERR | BUF_ERR |
//!
//! A name without `@` is USER_UNKNOWN at once, before any question, unless `domain=` is given: local
//! users belong to the other modules of the stack. An argument that cannot be honoured is logged and
//! answered with SERVICE_ERR.
//!
//! Modules: [`arguments`] of the pam.d line, [`decision`] with the two traits, the private `libpam`,
//! `sys` and `daemon` that implement them.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

/// Without memory a login fails; it does not end the host.
#[global_allocator]
static MEMORY: unix::guest::Memory = unix::guest::Memory;

pub mod arguments;
pub mod decision;

mod daemon;
mod libpam;
mod sys;

use std::ffi::CStr;

use pam::constants::{PAM_DISALLOW_NULL_AUTHTOK, PamFlag, PamResultCode as Code};
use pam::module::{PamHandle, PamHooks};

use arguments::{Arguments, Refused};
use daemon::Daemon;
use decision::{Flags, Host, Level};
use libpam::Libpam;

/// The module's entry points.
#[derive(Debug)]
pub struct PamMulti;

/// The `pam_sm_*` symbols, made by pam-bindings.
#[allow(missing_docs, clippy::missing_safety_doc)]
mod entry {
    use super::PamMulti;
    pam::pam_hooks!(PamMulti);
}

impl PamHooks for PamMulti {
    fn sm_authenticate(handle: &mut PamHandle, given: Vec<&CStr>, flags: PamFlag) -> Code {
        guarded(|| {
            with_arguments(handle, &given, |host, arguments| {
                let flags = Flags { disallow_empty: flags & PAM_DISALLOW_NULL_AUTHTOK != 0 };
                decision::authenticate(host, &mut Daemon::new(arguments), arguments, flags)
            })
        })
    }

    fn acct_mgmt(handle: &mut PamHandle, given: Vec<&CStr>, _: PamFlag) -> Code {
        guarded(|| {
            with_arguments(handle, &given, |host, arguments| {
                decision::account(host, &mut Daemon::new(arguments), arguments)
            })
        })
    }

    fn sm_chauthtok(handle: &mut PamHandle, given: Vec<&CStr>, _: PamFlag) -> Code {
        guarded(|| {
            with_arguments(handle, &given, |host, arguments| decision::change_password(host, arguments))
        })
    }

    // The three below have nothing to do. The defaults of the trait answer PAM_IGNORE, which makes
    // pam_setcred fail when the module is alone in its stack.

    fn sm_setcred(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> Code {
        Code::PAM_SUCCESS
    }

    fn sm_open_session(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> Code {
        Code::PAM_SUCCESS
    }

    fn sm_close_session(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> Code {
        Code::PAM_SUCCESS
    }
}

fn with_arguments(
    handle: &mut PamHandle,
    given: &[&CStr],
    answer: impl FnOnce(&mut Libpam<'_>, &Arguments) -> Code,
) -> Code {
    let given: Vec<&[u8]> = given.iter().map(|a| a.to_bytes()).collect();
    let mut host = Libpam(handle);
    match Arguments::read(&given) {
        Ok(arguments) => answer(&mut host, &arguments),
        Err(Refused(why)) => {
            host.log(Level::Error, &why);
            Code::PAM_SERVICE_ERR
        }
    }
}

/// Runs an entry point. A panic means that nobody can tell, so the stack goes on as if the daemon
/// were away (pam-bindings alone would answer PAM_ABORT, which ends the application's login).
fn guarded(entry: impl FnOnce() -> Code) -> Code {
    let done = unix::guest::guarded(entry);
    match done.value.unwrap_or(Code::PAM_AUTHINFO_UNAVAIL) {
        Code::PAM_AUTHINFO_UNAVAIL if done.short_of_memory => Code::PAM_BUF_ERR,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics again while it is dropped.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            std::panic::panic_any(Self);
        }
    }

    #[test]
    fn a_panic_is_no_answer() {
        assert_eq!(guarded(|| panic!("text")), Code::PAM_AUTHINFO_UNAVAIL);
        assert_eq!(guarded(|| std::panic::panic_any(Bomb)), Code::PAM_AUTHINFO_UNAVAIL);
        assert_eq!(guarded(|| Code::PAM_SUCCESS), Code::PAM_SUCCESS);
    }

    /// What the wrapper is for: the crate's own answers, which it replaces.
    #[test]
    fn the_crate_alone_would_abort_the_login() {
        struct Bare;
        impl PamHooks for Bare {
            fn sm_authenticate(_: &mut PamHandle, _: Vec<&CStr>, _: PamFlag) -> Code {
                panic!("text")
            }
        }
        let mut memory = 0u64;
        let handle = (&raw mut memory).cast::<PamHandle>();
        // SAFETY: the handle is not null, no arguments are passed and the hooks leave both alone.
        let panicked = unsafe {
            pam::macros::invoke_hook(handle, 0, std::ptr::null(), |h, a| Bare::sm_authenticate(h, a, 0))
        };
        assert_eq!(panicked, Code::PAM_ABORT);
        // SAFETY: as above.
        let default = unsafe {
            pam::macros::invoke_hook(handle, 0, std::ptr::null(), |h, a| Bare::sm_setcred(h, a, 0))
        };
        assert_eq!(default, Code::PAM_IGNORE);
    }
}
