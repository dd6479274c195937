//! vpasswd: a new password.

use accounts::{Event, Service};
use program::{Exit, Invocation, Operands, Place, Program, Spec};

use crate::context::{Context, EXITS, Failure, run};
use crate::password::password_options;
use crate::settings::{controls, variables};
use crate::{after, homes, password};

static SPEC: Spec = Spec {
    name: "vpasswd",
    summary: "set the password of a mail account",
    section: 1,
    place: Place::Bin,
    options: password_options![],
    operands: Operands { synopsis: "user@domain [password]", min: 1, max: Some(2) },
    variables: variables!(PASSWORD_HASH, POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET),
    controls: controls!(HASH_METHOD),
    exits: EXITS,
    description: "vpasswd sets a new password. It is asked for on the terminal unless --password-fd or -r is given. A \
password on the command line can be seen by everybody on this host.

A secret for SCRAM or CRAM is made anew only with -m or -C; an old one belongs to the old password and is dropped, \
with a warning.

When all is done, the program LIBEXECDIR/vpasswd (or POST_HANDLE) runs with the address as argument.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let given = context.address(context.operand(0))?;
    let (domain, address) = context.resolve(&given)?;
    let absent = || Failure::Absent(format!("{address}: no such account"));
    let before = context.accounts.store().account(&address)?.ok_or_else(absent)?;
    let method = homes::domain_file(&domain, "hash_method")?;
    let new = password::new(context, 1, &address.to_string(), method.as_deref())?;
    if before.scram.is_some() && new.scram.is_none() {
        context.warn(format!(
            "{address}: the secret for SCRAM or CRAM logins is dropped; set it anew with -m or -C"
        ));
    }
    // Only the two columns change: what another tool wrote meanwhile stays.
    if !context.accounts.store().set_password(&address, &new.hash, new.scram.as_ref())? {
        return Err(absent());
    }
    let at = i64::try_from(unix::clock::unix_seconds()).unwrap_or(i64::MAX);
    let event = Event { service: Service::password(), remote_ip: String::new(), at };
    context.accounts.store().note(&address, &event)?;
    new.show();
    after::account_changed(context, &address);
    after::handle(context, domain.ids, &[after::argument(&address)])
}
