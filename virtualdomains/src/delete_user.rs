//! vdeluser: one account, its aliases and its mail.

use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::context::{Context, EXITS, Failure, run};
use crate::settings::{controls, variables};
use crate::{after, homes};

static SPEC: Spec = Spec {
    name: "vdeluser",
    summary: "remove a mail account with its mail",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('y', "do not ask before a reserved account (postmaster, abuse, ...) is removed"),
        OptionSpec::flag('v', "tell what is done"),
    ],
    operands: Operands { synopsis: "user@domain", min: 1, max: Some(1) },
    variables: variables!(POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET),
    controls: controls!(),
    exits: EXITS,
    description: "vdeluser removes the account from the store with its ids, limits and last logins, the alias of its \
name and alias lines that lead to it, then its home with everything in it. Links in the home are not followed. A home \
that was not made by vadduser is left, with a warning.

When all is done, the program LIBEXECDIR/vdeluser (or POST_HANDLE) runs with the address as argument.",
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
    let Some(account) = context.accounts.store().account(&address)? else {
        return Err(Failure::Absent(format!("{address}: no such account")));
    };
    if address.is_reserved() && !context.parsed.flag("y") && !confirm(&address.to_string())? {
        return Err(Failure::refused(&address, "a reserved account was not removed"));
    }
    context.accounts.store().delete(&address)?;
    // From here on nobody finds the account; what a failure leaves is mail, never a half account.
    after::account_changed(context, &address);
    context.tell(format!("{}: home", account.home.display()));
    match homes::remove(&account.home, &address) {
        Err(Failure::Refused(why)) => context.warn(why),
        other => drop(other?),
    }
    after::handle(context, domain.ids, &[after::argument(&address)])
}

fn confirm(address: &str) -> Result<bool, Failure> {
    use std::io::{BufRead, Write};
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    let terminal = terminal.map_err(|_| {
        Failure::refused(address, "a reserved account: there is no terminal to ask on; use -y")
    })?;
    let fail = |e| Failure::step("/dev/tty", e);
    (&terminal)
        .write_all(format!("{address} is a reserved account; remove it (y/n)? ").as_bytes())
        .map_err(fail)?;
    let mut line = String::new();
    std::io::BufReader::new(&terminal).read_line(&mut line).map_err(fail)?;
    Ok(line.trim().eq_ignore_ascii_case("y"))
}
