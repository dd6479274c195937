use super::*;

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap()
}

fn set_errno(value: c_int) {
    // SAFETY: errno of this thread.
    unsafe { *libc::__errno_location() = value };
}

#[test]
fn a_panic_is_an_answer_and_never_leaves() {
    let mut code = 7777;
    // SAFETY: `code` outlives the call.
    let status = unsafe { guarded(&raw mut code, || panic!("on purpose")) };
    assert_eq!((status, code), (NssStatus::Unavail as c_int, libc::EAGAIN));
}

#[test]
fn errno_stays_on_success_and_is_set_otherwise() {
    for (outcome, expected) in [
        (FOUND, libc::EXDEV),
        (ABSENT, libc::ENOENT),
        (AWAY, libc::EAGAIN),
        (LATER, libc::EAGAIN),
        (SMALL, libc::ERANGE),
    ] {
        set_errno(libc::EXDEV);
        let work = || {
            set_errno(libc::EIO);
            outcome
        };
        // SAFETY: glibc passes the address of errno itself; so does this.
        let status = unsafe { guarded(libc::__errno_location(), work) };
        assert_eq!((status, errno()), (outcome.0 as c_int, expected));
    }
}

#[test]
fn names_that_cannot_be_ours_are_absent() {
    let long = [vec![b'a'; 400], b"@b\0".to_vec()].concat();
    for bytes in [&b"\xff@b\0"[..], &long] {
        // SAFETY: both end with a NUL.
        assert_eq!(unsafe { name(bytes.as_ptr().cast()) }, None);
    }
    // SAFETY: null is allowed.
    assert_eq!(unsafe { name(std::ptr::null()) }, None);
}

/// Groups in an array from malloc, as libc has it.
struct Array {
    ids: *mut libc::gid_t,
    start: c_long,
    size: c_long,
}

impl Array {
    fn new(first: &[libc::gid_t]) -> Self {
        let count = c_long::try_from(first.len()).unwrap();
        // SAFETY: room for the ids, which are copied.
        let ids = unsafe {
            let ids = libc::malloc(size_of_val(first)).cast::<libc::gid_t>();
            ids.copy_from_nonoverlapping(first.as_ptr(), first.len());
            ids
        };
        Self { ids, start: count, size: count }
    }

    fn append(&mut self, ids: &[libc::gid_t], limit: c_long) -> NssStatus {
        // SAFETY: the array is as described.
        unsafe { append(ids.iter().copied(), &mut self.start, &mut self.size, &mut self.ids, limit).0 }
    }

    fn used(&self) -> &[libc::gid_t] {
        // SAFETY: `start` ids are in use.
        unsafe { std::slice::from_raw_parts(self.ids, usize::try_from(self.start).unwrap()) }
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: from malloc or realloc.
        unsafe { libc::free(self.ids.cast()) };
    }
}

#[test]
fn groups_are_appended_once_and_the_array_grows() {
    let mut array = Array::new(&[10, 11]);
    let ids: Vec<libc::gid_t> = (11..100).collect();
    assert_eq!(array.append(&ids, -1), NssStatus::Success);
    assert_eq!(array.used().to_vec(), (10..100).collect::<Vec<_>>());
    assert_eq!(array.append(&ids, -1), NssStatus::Success);
    assert_eq!(array.start, 90);
    assert_eq!(array.append(&[], -1), NssStatus::NotFound);
}

#[test]
fn the_limit_of_groups_is_kept() {
    let mut array = Array::new(&[1]);
    assert_eq!(array.append(&[2, 3, 4, 5], 3), NssStatus::Success);
    assert_eq!((array.used(), array.size), (&[1, 2, 3][..], 3));
}
