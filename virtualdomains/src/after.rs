//! What comes after a change: daemons forget what they remembered, and the site's own program runs.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use accounts::{Address, DomainName, UnixIds};
use nix::unistd::{Gid, Uid};
use program::Exit;
use service::state_path::Places;
use unix::Signal;
use unix::child::{Ending, Launch, wait_for};

use crate::context::{Context, Failure};

/// How long a daemon may take to forget.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tells inlookup and nssd that an account or alias changed.
pub(crate) fn account_changed(context: &Context<'_>, address: &Address) {
    flush(context, lookup::Key::Address(address.to_string().as_bytes()));
}

/// Tells inlookup and nssd that a domain came or went, and qmail-send to read its control files again.
pub(crate) fn domain_changed(context: &Context<'_>, domain: &DomainName) {
    flush(context, lookup::Key::Domain(domain.as_bytes()));
    let Some(service) = context.settings.send_service.as_deref() else {
        return;
    };
    let places = Places::new(&context.invocation.environment);
    let why = match service::command(&places, service, b"h") {
        Ok(true) => return,
        Ok(false) => "supervise is not running".to_owned(),
        Err(e) => e.to_string(),
    };
    context.warn(format!(
        "{}: qmail-send was not told to read its control files again: {why}",
        service.display()
    ));
}

/// A daemon that is not there remembers nothing; one that does not answer is a warning, because the change
/// itself is made and is seen when its memory expires.
fn flush(context: &Context<'_>, key: lookup::Key<'_>) {
    let (inlookup, nssd) = (&context.settings.inlookup, &context.settings.nssd);
    if inlookup.exists() {
        let answer = lookup::mail::Client::new(inlookup, PATIENCE).flush(key);
        report(context, inlookup, answer);
    }
    if nssd.exists() {
        let answer = lookup::identity::Client::new(nssd, PATIENCE).flush(key);
        report(context, nssd, answer);
    }
}

fn report(context: &Context<'_>, socket: &Path, answer: Result<(), lookup::Unavailable>) {
    if let Err(e) = answer {
        context.warn(format!("{}: still remembers the old state for a while: {e}", socket.display()));
    }
}

/// Runs the post-handle program, if there is one: POST_HANDLE (split at blanks), else
/// `LIBEXECDIR/COMMAND`. It gets `arguments` as they are, the command's name in INDIMAIL_TOOL, no descriptor
/// but the first three, and runs as the domain's user, never as root. Its exit code is the command's.
pub(crate) fn handle(context: &Context<'_>, ids: UnixIds, arguments: &[OsString]) -> Result<Exit, Failure> {
    let name = context.invocation.spec.name;
    let mut words = match &context.settings.post_handle {
        Some(command) => command
            .split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty())
            .map(|w| OsString::from_vec(w.to_vec()))
            .collect::<Vec<_>>(),
        None => vec![context.invocation.layout.libexec(name).into()],
    };
    if words.is_empty() || !Path::new(&words[0]).exists() {
        return Ok(Exit::OK);
    }
    let program = words.remove(0);
    let mut environment = context.invocation.environment.clone();
    environment.set("INDIMAIL_TOOL", name);
    let mut launch = Launch::new(&program).args(&words).args(arguments).env_exactly(environment.to_vec());
    if !context.roles.is_single_user() {
        let gid = Gid::from_raw(ids.gid);
        launch = launch.identity(Uid::from_raw(ids.uid), gid, vec![gid]);
    }
    let fail = |e: std::io::Error| Failure::step(program.as_bytes().escape_ascii(), e);
    unix::fd::set_cloexec_from(3).map_err(fail)?;
    // An interrupt from the terminal is for the program; this command waits for it.
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        unix::signals::ignore(signal).map_err(fail)?;
    }
    let pid = launch.start().map_err(fail)?;
    match wait_for(pid).map_err(fail)? {
        Ending::Exited(code) => Ok(Exit(u8::try_from(code).unwrap_or(111))),
        Ending::Killed(signal) => {
            Err(Failure::step(program.as_bytes().escape_ascii(), format!("killed by signal {signal}")))
        }
    }
}

/// One argument for [`handle`].
pub(crate) fn argument(text: impl std::fmt::Display) -> OsString {
    OsString::from(text.to_string())
}
