//! The functions that libc calls.
//!
//! Each catches panics, keeps the caller's errno on success and sets it on every other outcome:
//!
//! | outcome | status | errno |
//! |---|---|---|
//! | record returned | SUCCESS | unchanged |
//! | absent; after the last record | NOTFOUND | ENOENT |
//! | nobody to ask (no socket, nobody listens), or a fault of ours | UNAVAIL | EAGAIN |
//! | no memory | UNAVAIL | ENOMEM |
//! | no answer in time, a broken one, the daemon cannot tell | TRYAGAIN | EAGAIN |
//! | caller's buffer too small | TRYAGAIN | ERANGE |
//!
//! errno is EAGAIN and not ENOENT when the daemon is away: libc hands it to the caller, and ENOENT
//! there means "no such user", which would bounce mail.

use std::ffi::{CStr, c_char, c_int, c_long};

use libnss::group::{Group, GroupHooks};
use libnss::initgroups::InitgroupsHooks;
use libnss::interop::{NssStatus, Response};
use libnss::passwd::{Passwd, PasswdHooks};
use libnss::shadow::{Shadow, ShadowHooks};
use lookup::frame::MAX_NAME;
use snapshot::Map;
use unix::guest;

use crate::buffer::{Buffer, Record, TooSmall};
use crate::hooks::{Indimail, Walkable};
use crate::mapping::{Look, look};
use crate::source::{self, Fault};
use crate::walk::Walk;

static USERS: Walk<Passwd> = Walk::new();
static GROUPS: Walk<Group> = Walk::new();
static SHADOWS: Walk<Shadow> = Walk::new();

/// A status and the errno that goes with it.
type Outcome = (NssStatus, c_int);

const FOUND: Outcome = (NssStatus::Success, 0);
const ABSENT: Outcome = (NssStatus::NotFound, libc::ENOENT);
const AWAY: Outcome = (NssStatus::Unavail, libc::EAGAIN);
const NO_MEMORY: Outcome = (NssStatus::Unavail, libc::ENOMEM);
const LATER: Outcome = (NssStatus::TryAgain, libc::EAGAIN);
const SMALL: Outcome = (NssStatus::TryAgain, libc::ERANGE);

fn of_fault(fault: Fault) -> Outcome {
    match fault {
        Fault::Unavailable => AWAY,
        Fault::TryAgain => LATER,
    }
}

/// Runs the work of an exported function.
///
/// # Safety
/// `errnop` is null or points to an int of the caller.
unsafe fn guarded(errnop: *mut c_int, work: impl FnOnce() -> Outcome) -> c_int {
    // SAFETY: errno of this thread, always there.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *errno };
    let done = guest::guarded(work);
    let (status, code) = match done.value.unwrap_or(AWAY) {
        AWAY | LATER if done.short_of_memory => NO_MEMORY,
        outcome => outcome,
    };
    // SAFETY: as above; `errnop` by contract. It is the caller's errno itself or a place of its own,
    // so it is written last.
    unsafe {
        *errno = before;
        if status != NssStatus::Success && !errnop.is_null() {
            *errnop = code;
        }
    }
    status as c_int
}

/// The name the caller asks for; `None` when it cannot be one of ours.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn name<'a>(name: *const c_char) -> Option<&'a str> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a C string by contract.
    let bytes = unsafe { CStr::from_ptr(name) }.to_bytes();
    if bytes.len() > MAX_NAME {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

/// A record of the map; whatever it says, it makes nobody root.
trait Mapped: Record {
    fn is_root(&self) -> bool;
}

impl Mapped for snapshot::User {
    fn is_root(&self) -> bool {
        self.uid() == 0
    }
}

impl Mapped for snapshot::Group {
    fn is_root(&self) -> bool {
        self.gid() == 0
    }
}

/// Puts what the map found where the caller wants it, or asks the daemon.
///
/// # Safety
/// As [`put`].
unsafe fn put_mapped<T: Mapped>(
    seen: &Look<T>,
    ask: impl FnOnce() -> Outcome,
    result: *mut T::C,
    buffer: *mut c_char,
    length: usize,
) -> Outcome {
    let put = |record: &T| {
        if record.is_root() {
            return ABSENT;
        }
        // SAFETY: by contract.
        match unsafe { put_record(record, result, buffer, length) } {
            Ok(()) => FOUND,
            Err(TooSmall) => SMALL,
        }
    };
    match seen {
        Look::Found(record) => put(record),
        Look::Absent => ABSENT,
        Look::Ask(before) => match (ask(), before) {
            (AWAY, Some(record)) => put(record),
            (outcome, _) => outcome,
        },
    }
}

/// Puts an answer where the caller wants it.
///
/// # Safety
/// `result` points to a structure of the caller, `buffer` is null or points to `length` bytes.
unsafe fn put<T: Record>(
    answer: Response<T>,
    result: *mut T::C,
    buffer: *mut c_char,
    length: usize,
) -> Outcome {
    match answer {
        // SAFETY: by contract.
        Response::Success(record) => match unsafe { put_record(&record, result, buffer, length) } {
            Ok(()) => FOUND,
            Err(TooSmall) => SMALL,
        },
        Response::NotFound => ABSENT,
        Response::TryAgain => LATER,
        Response::Unavail | Response::Return => AWAY,
    }
}

/// Writes the structure only when all of the record fits.
///
/// # Safety
/// As [`put`].
unsafe fn put_record<T: Record>(
    record: &T,
    result: *mut T::C,
    buffer: *mut c_char,
    length: usize,
) -> Result<(), TooSmall> {
    // SAFETY: by contract.
    let whole = record.put(&mut unsafe { Buffer::new(buffer, length) })?;
    if !result.is_null() {
        // SAFETY: not null, and the caller's structure by contract.
        unsafe { result.write(whole) };
    }
    Ok(())
}

/// The next record of a map.
///
/// # Safety
/// As [`put`].
unsafe fn next<T: Record + Walkable>(
    walk: &Walk<T>,
    result: *mut T::C,
    buffer: *mut c_char,
    length: usize,
) -> Outcome {
    // SAFETY: by contract.
    match walk.step(|record| unsafe { put_record(record, result, buffer, length) }) {
        Ok(None) => ABSENT,
        Ok(Some(Ok(()))) => FOUND,
        Ok(Some(Err(TooSmall))) => SMALL,
        Err(fault) => of_fault(fault),
    }
}

/// Rewinds a map.
fn rewind<T: Walkable>(walk: &Walk<T>) -> c_int {
    // SAFETY: a null errnop is allowed.
    unsafe {
        guarded(std::ptr::null_mut(), || {
            walk.rewind();
            FOUND
        })
    }
}

macro_rules! lookup {
    ($(#[$doc:meta])* $function:ident, $hooks:ident :: $hook:ident, name, $maybe:path, $map:expr, $c:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As libc calls it: `key` a C string, `result` a structure, `buffer` of `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(
            key: *const c_char,
            result: *mut $c,
            buffer: *mut c_char,
            length: usize,
            errnop: *mut c_int,
        ) -> c_int {
            // SAFETY: by the contract of libc.
            unsafe {
                guarded(errnop, || {
                    let Some(key) = name(key).filter(|key| $maybe(key.as_bytes())) else { return ABSENT };
                    let seen = look(|map| $map(map, key.as_bytes()));
                    let ask = || put(<Indimail as $hooks>::$hook(key.to_owned()), result, buffer, length);
                    put_mapped(&seen, ask, result, buffer, length)
                })
            }
        }
    };
    ($(#[$doc:meta])* $function:ident, $hooks:ident :: $hook:ident, id, $map:expr, $c:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As libc calls it: `result` a structure, `buffer` of `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(
            key: u32,
            result: *mut $c,
            buffer: *mut c_char,
            length: usize,
            errnop: *mut c_int,
        ) -> c_int {
            // SAFETY: by the contract of libc.
            unsafe {
                guarded(errnop, || {
                    if key == 0 {
                        return ABSENT;
                    }
                    let seen = look(|map| $map(map, key));
                    let ask = || put(<Indimail as $hooks>::$hook(key), result, buffer, length);
                    put_mapped(&seen, ask, result, buffer, length)
                })
            }
        }
    };
}

macro_rules! walk {
    ($map:ident, $c:ty, $set:ident, $get:ident, $end:ident) => {
        /// Goes back before the first record.
        #[unsafe(no_mangle)]
        pub extern "C" fn $set(_stay_open: c_int) -> c_int {
            rewind(&$map)
        }

        /// The next record, also without a call to the set function before.
        ///
        /// # Safety
        /// As libc calls it: `result` a structure, `buffer` of `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $get(
            result: *mut $c,
            buffer: *mut c_char,
            length: usize,
            errnop: *mut c_int,
        ) -> c_int {
            // SAFETY: by the contract of libc.
            unsafe { guarded(errnop, || next(&$map, result, buffer, length)) }
        }

        /// Forgets what was fetched.
        #[unsafe(no_mangle)]
        pub extern "C" fn $end() -> c_int {
            rewind(&$map)
        }
    };
}

lookup!(
    /// A user by name.
    _nss_indimail_getpwnam_r, PasswdHooks::get_entry_by_name, name, source::may_be_user, Map::user, libc::passwd
);
lookup!(
    /// A user by id.
    _nss_indimail_getpwuid_r, PasswdHooks::get_entry_by_uid, id, Map::user_by_uid, libc::passwd
);
lookup!(
    /// A group by name.
    _nss_indimail_getgrnam_r, GroupHooks::get_entry_by_name, name, source::may_be_group, Map::group, libc::group
);
lookup!(
    /// A group by id.
    _nss_indimail_getgrgid_r, GroupHooks::get_entry_by_gid, id, Map::group_by_gid, libc::group
);

/// A shadow record by name; those are in no map.
///
/// # Safety
/// As libc calls it: `key` a C string, `result` a structure, `buffer` of `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_indimail_getspnam_r(
    key: *const c_char,
    result: *mut libc::spwd,
    buffer: *mut c_char,
    length: usize,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: by the contract of libc.
    unsafe {
        guarded(errnop, || {
            let Some(key) = name(key) else { return ABSENT };
            put(<Indimail as ShadowHooks>::get_entry_by_name(key.to_owned()), result, buffer, length)
        })
    }
}

walk!(USERS, libc::passwd, _nss_indimail_setpwent, _nss_indimail_getpwent_r, _nss_indimail_endpwent);
walk!(GROUPS, libc::group, _nss_indimail_setgrent, _nss_indimail_getgrent_r, _nss_indimail_endgrent);
walk!(SHADOWS, libc::spwd, _nss_indimail_setspent, _nss_indimail_getspent_r, _nss_indimail_endspent);

/// The groups of a user beside `primary`, appended to an array that grows as needed.
///
/// # Safety
/// As libc calls it: `user` a C string; `groups` points to an array from malloc of `size` ids, of which
/// `start` are in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn _nss_indimail_initgroups_dyn(
    user: *const c_char,
    primary: libc::gid_t,
    start: *mut c_long,
    size: *mut c_long,
    groups: *mut *mut libc::gid_t,
    limit: c_long,
    errnop: *mut c_int,
) -> c_int {
    // SAFETY: by the contract of libc.
    unsafe {
        guarded(errnop, || {
            let Some(user) = name(user).filter(|user| source::may_be_user(user.as_bytes())) else {
                return ABSENT;
            };
            if start.is_null() || size.is_null() || groups.is_null() {
                return AWAY;
            }
            let append = |ids: &mut dyn Iterator<Item = libc::gid_t>| {
                let ids = ids.filter(|&gid| gid != primary && gid != 0);
                append(ids, &mut *start, &mut *size, &mut *groups, limit)
            };
            let before = match look(|map| map.groups_of(user.as_bytes())) {
                Look::Found(gid) => return append(&mut std::iter::once(gid)),
                Look::Absent => return ABSENT,
                Look::Ask(before) => before,
            };
            match (Indimail::get_entries_by_user(user.to_owned()), before) {
                (Response::Success(found), _) => append(&mut found.iter().map(|g| g.gid)),
                (Response::NotFound, _) => ABSENT,
                (Response::TryAgain, _) => LATER,
                (Response::Unavail | Response::Return, Some(gid)) => append(&mut std::iter::once(gid)),
                (Response::Unavail | Response::Return, None) => AWAY,
            }
        })
    }
}

/// # Safety
/// `*groups` is an array from malloc of `*size` ids, of which `*start` are in use.
unsafe fn append(
    ids: impl Iterator<Item = libc::gid_t>,
    start: &mut c_long,
    size: &mut c_long,
    groups: &mut *mut libc::gid_t,
    limit: c_long,
) -> Outcome {
    let mut any = false;
    for id in ids {
        any = true;
        let Ok(used) = usize::try_from(*start) else { return AWAY };
        // SAFETY: `used` ids of the array are in use.
        let known = !groups.is_null() && unsafe { std::slice::from_raw_parts(*groups, used) }.contains(&id);
        if known {
            continue;
        }
        if *start >= *size {
            if limit > 0 && *size >= limit {
                break;
            }
            let mut wanted = size.saturating_mul(2).max(16);
            if limit > 0 {
                wanted = wanted.min(limit);
            }
            let bytes = usize::try_from(wanted).ok().and_then(|n| n.checked_mul(size_of::<libc::gid_t>()));
            let Some(bytes) = bytes else { return AWAY };
            // SAFETY: the array is from malloc; on failure it stays as it was.
            let grown = unsafe { libc::realloc((*groups).cast(), bytes) };
            if grown.is_null() {
                return NO_MEMORY;
            }
            *groups = grown.cast();
            *size = wanted;
        }
        // SAFETY: `used` = `*start` is below `*size`.
        unsafe { (*groups).add(used).write(id) };
        *start = start.saturating_add(1);
    }
    if any { FOUND } else { ABSENT }
}

/// Switches the module off in this process (or on again with 0): for the daemons behind it, which
/// must not wait for themselves.
#[unsafe(no_mangle)]
pub extern "C" fn _nss_indimail_block(on: c_int) {
    source::block(on != 0);
}

#[cfg(test)]
mod tests;
