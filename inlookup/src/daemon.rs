//! The daemon: socket, user, lanes.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use program::{Exit, Invocation, Program};
use serve::{Front, Statistics};
use unix::ids::Roles;
use unix::signals::Signals;
use unix::{Gid, Uid};

use crate::log::Log;
use crate::lookups::Lookups;
use crate::peers::Peers;
use crate::settings::{SPEC, Settings};

/// The program `inlookup`.
pub const PROGRAM: Program = Program { spec: &SPEC, main: run };

/// Who may connect: owner and group.
const SOCKET_MODE: u32 = 0o660;

fn run(invocation: &Invocation) -> Exit {
    let settings = match Settings::load(invocation) {
        Ok(settings) => settings,
        Err(exit) => return exit,
    };
    match serve(invocation, settings) {
        Ok(()) => Exit::OK,
        Err(what) => {
            invocation.complain("fatal", what);
            Exit(1)
        }
    }
}

fn serve(invocation: &Invocation, settings: Settings) -> Result<(), String> {
    // Before any thread, so that all of them leave signals to the front.
    let signals = Signals::listen(&serve::SIGNALS_OBEYED).map_err(|e| format!("signals: {e}"))?;
    let listener = serve::listener(&settings.socket, SOCKET_MODE).map_err(|e| e.to_string())?;
    hand_over(&listener)?;
    let own = unix::ids::effective().uid;
    let peers = Peers::resolve(own).map_err(|e| format!("cannot look up the mail users: {e}"))?;
    let log = Log::new(invocation.spec.name, settings.verbose);
    if let Err(why) = protect(own) {
        log.line(format_args!("warning: memory is not protected against tracing and core dumps: {why}"));
    }
    let store = settings.accounts.store.describe();
    log.line(format_args!("status: listening on {}, accounts in {store}", settings.socket.display()));
    let statistics = Arc::<Statistics>::default();
    let front = serve::Settings {
        workers: settings.workers,
        slow_workers: settings.hashers,
        statistics: Arc::clone(&statistics),
        ..serve::Settings::default()
    };
    let service = Lookups::new(settings, peers, statistics, log).map_err(|e| format!("threads: {e}"))?;
    let service = Arc::new(service);
    let front = Front::new(front, listener, Some(signals), service).map_err(|e| e.to_string())?;
    front.run().map(|_| ()).map_err(|e| e.to_string())
}

/// Passwords pass through this memory. Other programs of user indimail (deliveries, filters) must not
/// read it; in a private instance everything is one user's, who may look. A sandbox that forbids these
/// calls sees to the same by itself, so a failure is no reason not to serve.
fn protect(own: Uid) -> io::Result<()> {
    unix::privilege::forbid_core_dumps()?;
    let is_indimail = unix::ids::user("indimail")?.is_some_and(|user| user.uid == own);
    if is_indimail { unix::privilege::forbid_tracing() } else { Ok(()) }
}

/// Gives the socket to indimail and group qmail, and becomes indimail when this is root. An ordinary
/// user gives it to the group if he may: in a private instance everybody is that user.
fn hand_over(listener: &UnixListener) -> Result<(), String> {
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let socket = address.as_pathname();
    let own = |uid: Option<Uid>, gid: Gid| match socket {
        Some(path) => chown(path, uid.map(Uid::as_raw), Some(gid.as_raw())),
        None => Ok(()),
    };
    let failed = |e: io::Error| format!("cannot hand the socket to group qmail: {e}");
    let roles = Roles::for_this_process();
    if roles.is_single_user() {
        let Some(group) = unix::ids::group("qmail").map_err(failed)? else {
            return Ok(());
        };
        return match own(None, group) {
            Err(e) if e.kind() != io::ErrorKind::PermissionDenied => Err(failed(e)),
            _ => Ok(()),
        };
    }
    let role = |group| roles.role("indimail", group).map_err(|e| e.to_string());
    let (indimail, qmail) = (role("indimail")?, role("qmail")?.gid);
    own(Some(indimail.uid), qmail).map_err(failed)?;
    unix::privilege::become_user(indimail.uid, indimail.gid, &[qmail])
        .map_err(|e| format!("cannot become indimail: {e}"))
}
