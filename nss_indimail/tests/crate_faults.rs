//! Why this module exports functions of its own and not those of `libnss`: each test shows a fault of
//! the crate's exports that ours do not have. When one of them fails after an upgrade of the crate,
//! that fault has been mended there.
//!
//! `libnss`'s macros are applied here to hooks named `faulty`, so that their exported functions are in
//! this executable and can be called as libc would.

use std::ffi::{CStr, c_char, c_int};
use std::mem::MaybeUninit;
use std::process::{Command, Output};

use libnss::group::{Group, GroupHooks};
use libnss::interop::Response;
use libnss::passwd::{Passwd, PasswdHooks};
use libnss::{libnss_group_hooks, libnss_passwd_hooks};
use nss_indimail::buffer::{Buffer, Record};

const SUCCESS: c_int = 1;
const NOT_FOUND: c_int = 0;
const UNAVAILABLE: c_int = -1;

struct Faulty;

fn user(gecos: &str) -> Passwd {
    Passwd {
        name: "ann@example.org".into(),
        passwd: "x".into(),
        uid: 8001,
        gid: 8001,
        gecos: gecos.into(),
        dir: "/".into(),
        shell: "/bin/sh".into(),
    }
}

impl PasswdHooks for Faulty {
    fn get_all_entries() -> Response<Vec<Passwd>> {
        Response::Success(vec![user("")])
    }

    fn get_entry_by_uid(_: u32) -> Response<Passwd> {
        panic!("a fault in a hook")
    }

    fn get_entry_by_name(name: String) -> Response<Passwd> {
        match name.as_str() {
            "nul" => Response::Success(user("a\0b")),
            "later" => Response::TryAgain,
            "away" => Response::Unavail,
            _ => Response::NotFound,
        }
    }
}
libnss_passwd_hooks!(faulty, Faulty);

impl GroupHooks for Faulty {
    fn get_all_entries() -> Response<Vec<Group>> {
        Response::NotFound
    }

    fn get_entry_by_gid(_: u32) -> Response<Group> {
        Response::NotFound
    }

    fn get_entry_by_name(name: String) -> Response<Group> {
        Response::Success(Group { name, passwd: "x".into(), gid: 9, members: vec!["ann@example.org".into()] })
    }
}
libnss_group_hooks!(faulty, Faulty);

unsafe extern "C" {
    fn _nss_faulty_getpwnam_r(
        name: *const c_char,
        result: *mut libc::passwd,
        buffer: *mut c_char,
        length: usize,
        errnop: *mut c_int,
    ) -> c_int;
    fn _nss_faulty_getpwuid_r(
        uid: u32,
        result: *mut libc::passwd,
        buffer: *mut c_char,
        length: usize,
        errnop: *mut c_int,
    ) -> c_int;
    fn _nss_faulty_getpwent_r(
        result: *mut libc::passwd,
        buffer: *mut c_char,
        length: usize,
        errnop: *mut c_int,
    ) -> c_int;
    fn _nss_faulty_getgrnam_r(
        name: *const c_char,
        result: *mut libc::group,
        buffer: *mut c_char,
        length: usize,
        errnop: *mut c_int,
    ) -> c_int;
}

/// Status and errno of a look-up by name through the crate's own function.
fn by_name(name: &CStr) -> (c_int, c_int) {
    let (mut result, mut buffer, mut code) = (MaybeUninit::<libc::passwd>::uninit(), [0; 1024], 7777);
    // SAFETY: as libc calls it; everything outlives the call.
    let status = unsafe {
        _nss_faulty_getpwnam_r(name.as_ptr(), result.as_mut_ptr(), buffer.as_mut_ptr(), 1024, &raw mut code)
    };
    (status, code)
}

/// Runs this test executable again for a call that kills its process.
fn in_child(test: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env("FAULT_CHILD", test);
    command.output().unwrap()
}

fn is_child(test: &str) -> bool {
    std::env::var_os("FAULT_CHILD").is_some_and(|v| v == test)
}

fn killed_by_abort(output: &Output) -> bool {
    use std::os::unix::process::ExitStatusExt;
    output.status.signal() == Some(libc::SIGABRT)
}

#[test]
fn a_panic_in_a_hook_kills_the_host() {
    const NAME: &str = "a_panic_in_a_hook_kills_the_host";
    if is_child(NAME) {
        let (mut result, mut buffer, mut code) = (MaybeUninit::<libc::passwd>::uninit(), [0; 64], 0);
        // SAFETY: as libc calls it.
        unsafe { _nss_faulty_getpwuid_r(1, result.as_mut_ptr(), buffer.as_mut_ptr(), 64, &raw mut code) };
        return;
    }
    assert!(killed_by_abort(&in_child(NAME)));
}

#[test]
fn a_nul_in_a_field_kills_the_host() {
    const NAME: &str = "a_nul_in_a_field_kills_the_host";
    if is_child(NAME) {
        by_name(c"nul");
        return;
    }
    assert!(killed_by_abort(&in_child(NAME)));
    // Ours ends the string there.
    let mut memory = [0; 256];
    // SAFETY: the array outlives the buffer.
    let record = user("a\0b").put(&mut unsafe { Buffer::new(memory.as_mut_ptr(), 256) }).unwrap();
    // SAFETY: just made.
    assert_eq!(unsafe { CStr::from_ptr(record.pw_gecos) }, c"a");
}

#[test]
fn errno_keeps_what_it_was_on_failure() {
    assert_eq!(by_name(c"nobody"), (NOT_FOUND, 7777));
    assert_eq!(by_name(c"away"), (UNAVAILABLE, 7777));
    assert_eq!(by_name(c"later"), (-2, 7777));
}

#[test]
fn a_walk_without_setpwent_is_unavailable() {
    let (mut result, mut buffer, mut code) = (MaybeUninit::<libc::passwd>::uninit(), [0; 1024], 0);
    // SAFETY: as libc calls it.
    let status =
        unsafe { _nss_faulty_getpwent_r(result.as_mut_ptr(), buffer.as_mut_ptr(), 1024, &raw mut code) };
    assert_eq!(status, UNAVAILABLE);
}

#[test]
fn the_member_list_is_misaligned() {
    let mut buffer = [0u64; 64];
    let start = buffer.as_mut_ptr().cast::<c_char>();
    let misaligned = [c"g", c"gr", c"gro", c"grou"].into_iter().any(|name| {
        let (mut result, mut code) = (MaybeUninit::<libc::group>::uninit(), 0);
        // SAFETY: as libc calls it; on success the structure is written.
        unsafe {
            let status =
                _nss_faulty_getgrnam_r(name.as_ptr(), result.as_mut_ptr(), start, 512, &raw mut code);
            assert_eq!(status, SUCCESS);
            !(*result.as_ptr()).gr_mem.is_aligned()
        }
    });
    assert!(misaligned);
}
