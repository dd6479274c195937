//! Questions and answers as `libnss` has them: its records, its responses, its hook traits.

use libnss::group::{Group, GroupHooks};
use libnss::initgroups::InitgroupsHooks;
use libnss::interop::Response;
use libnss::passwd::{Passwd, PasswdHooks};
use libnss::shadow::{Shadow, ShadowHooks};
use lookup::identity::{self, Map, Page, Reply, Request};

use crate::source::{Fault, Source, may_be_group, may_be_user};

/// The hooks of this module.
#[derive(Debug, Clone, Copy)]
pub struct Indimail;

/// Records that a map holds, for walking it.
pub trait Walkable: Sized {
    /// The map.
    const MAP: Map;

    /// The records of a reply.
    fn of(reply: Reply) -> Option<Page<Self>>;
}

/// One page of a map. An answer of "absent" is an empty last page.
///
/// # Errors
/// There is no answer.
pub fn page<T: Walkable>(cursor: &[u8]) -> Result<Page<T>, Fault> {
    let end = Page { records: Vec::new(), next: Vec::new() };
    let Some(source) = Source::of_this_process()? else { return Ok(end) };
    match source.ask(&Request::Page { map: T::MAP, cursor })? {
        None => Ok(end),
        Some(reply) => T::of(reply).ok_or(Fault::TryAgain),
    }
}

/// A whole map. Large maps are better walked page by page.
fn all<T: Walkable>() -> Response<Vec<T>> {
    let (mut records, mut cursor) = (Vec::new(), Vec::new());
    loop {
        match page::<T>(&cursor) {
            Err(fault) => return failed(fault),
            Ok(page) => {
                records.extend(page.records);
                if page.next.is_empty() {
                    return Response::Success(records);
                }
                cursor = page.next;
            }
        }
    }
}

fn one<T>(possible: bool, request: &Request<'_>, pick: impl FnOnce(Reply) -> Option<T>) -> Response<T> {
    if !possible {
        return Response::NotFound;
    }
    match Source::of_this_process().and_then(|source| source.map_or(Ok(None), |s| s.ask(request))) {
        Ok(None) => Response::NotFound,
        Ok(Some(reply)) => pick(reply).map_or(Response::NotFound, Response::Success),
        Err(fault) => failed(fault),
    }
}

fn failed<T>(fault: Fault) -> Response<T> {
    match fault {
        Fault::Unavailable => Response::Unavail,
        Fault::TryAgain => Response::TryAgain,
    }
}

impl PasswdHooks for Indimail {
    fn get_all_entries() -> Response<Vec<Passwd>> {
        all()
    }

    fn get_entry_by_uid(uid: libc::uid_t) -> Response<Passwd> {
        one(uid != 0, &Request::UserById(uid), pick_user)
    }

    fn get_entry_by_name(name: String) -> Response<Passwd> {
        one(may_be_user(name.as_bytes()), &Request::UserByName(name.as_bytes()), pick_user)
    }
}

impl GroupHooks for Indimail {
    fn get_all_entries() -> Response<Vec<Group>> {
        all()
    }

    fn get_entry_by_gid(gid: libc::gid_t) -> Response<Group> {
        one(gid != 0, &Request::GroupById(gid), pick_group)
    }

    fn get_entry_by_name(name: String) -> Response<Group> {
        one(may_be_group(name.as_bytes()), &Request::GroupByName(name.as_bytes()), pick_group)
    }
}

impl ShadowHooks for Indimail {
    fn get_all_entries() -> Response<Vec<Shadow>> {
        all()
    }

    fn get_entry_by_name(name: String) -> Response<Shadow> {
        one(may_be_user(name.as_bytes()), &Request::ShadowByName(name.as_bytes()), |reply| match reply {
            Reply::Shadow(shadow) => Some(shadow_record(shadow)),
            _ => None,
        })
    }
}

impl InitgroupsHooks for Indimail {
    /// Groups without names: only their ids are asked for.
    fn get_entries_by_user(user: String) -> Response<Vec<Group>> {
        let request = Request::GroupsOf(user.as_bytes());
        one(may_be_user(user.as_bytes()), &request, |reply| match reply {
            Reply::Groups(ids) => Some(
                ids.into_iter()
                    .map(|gid| Group { name: String::new(), passwd: String::new(), gid, members: Vec::new() })
                    .collect(),
            ),
            _ => None,
        })
    }
}

impl Walkable for Passwd {
    const MAP: Map = Map::Passwd;

    fn of(reply: Reply) -> Option<Page<Self>> {
        match reply {
            Reply::Users(page) => Some(convert(page, user_record)),
            _ => None,
        }
    }
}

impl Walkable for Group {
    const MAP: Map = Map::Group;

    fn of(reply: Reply) -> Option<Page<Self>> {
        match reply {
            Reply::GroupPage(page) => Some(convert(page, group_record)),
            _ => None,
        }
    }
}

impl Walkable for Shadow {
    const MAP: Map = Map::Shadow;

    fn of(reply: Reply) -> Option<Page<Self>> {
        match reply {
            Reply::Shadows(page) => Some(convert(page, |s| Some(shadow_record(s)))),
            _ => None,
        }
    }
}

fn convert<A, B>(page: Page<A>, record: impl FnMut(A) -> Option<B>) -> Page<B> {
    Page { records: page.records.into_iter().filter_map(record).collect(), next: page.next }
}

fn pick_user(reply: Reply) -> Option<Passwd> {
    match reply {
        Reply::User(user) => user_record(user),
        _ => None,
    }
}

fn pick_group(reply: Reply) -> Option<Group> {
    match reply {
        Reply::Group(group) => group_record(group),
        _ => None,
    }
}

/// Whatever the daemon says, it cannot make anybody root.
fn user_record(user: identity::User) -> Option<Passwd> {
    (user.uid != 0).then(|| Passwd {
        name: text(user.name),
        passwd: "x".to_owned(),
        uid: user.uid,
        gid: user.gid,
        gecos: text(user.gecos),
        dir: text(user.home),
        shell: text(user.shell),
    })
}

fn group_record(group: identity::Group) -> Option<Group> {
    (group.gid != 0).then(|| Group {
        name: text(group.name),
        passwd: "x".to_owned(),
        gid: group.gid,
        members: group.members.into_iter().map(text).collect(),
    })
}

fn shadow_record(shadow: identity::Shadow) -> Shadow {
    // An empty field is -1, as fgetspent(3) has it.
    let days = |d: Option<u64>| d.and_then(|d| isize::try_from(d).ok()).unwrap_or(-1);
    Shadow {
        name: text(shadow.name),
        passwd: text(shadow.password),
        last_change: days(shadow.last_change),
        change_min_days: days(shadow.min),
        change_max_days: days(shadow.max),
        change_warn_days: days(shadow.warn),
        change_inactive_days: days(shadow.inactive),
        expire_date: days(shadow.expire),
        reserved: usize::MAX,
    }
}

/// Account data is UTF-8; anything else is shown as such.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}
