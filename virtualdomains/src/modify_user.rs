//! vmoduser: what an account may do, and what else is known about it.

use accounts::{Account, Quota, ServiceFlags, parse_quota};
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::after;
use crate::context::{Context, EXITS, Failure, run};
use crate::settings::{controls, variables};

static SPEC: Spec = Spec {
    name: "vmoduser",
    summary: "change a mail account",
    section: 1,
    place: Place::Bin,
    options: &[
        OptionSpec::flag('n', "make an active account inactive, an inactive one active"),
        OptionSpec::value(
            'q',
            "quota",
            "BYTES[k|M|G][S][,COUNTC] or NOQUOTA; after + or -, added to or taken from the bytes",
        ),
        OptionSpec::value('c', "text", "full name or other text"),
        OptionSpec::flag('u', "no dial-up"),
        OptionSpec::flag('d', "may not change its password"),
        OptionSpec::flag('p', "no POP3"),
        OptionSpec::flag('s', "no SMTP"),
        OptionSpec::flag('w', "no web mail"),
        OptionSpec::flag('i', "no IMAP"),
        OptionSpec::flag('b', "mail to it bounces as over quota"),
        OptionSpec::flag('r', "may not relay"),
        OptionSpec::flag('a', "administers its domain"),
        OptionSpec::flag('o', "exempt from the limits of its domain"),
        OptionSpec::flag('0', "the site's first flag"),
        OptionSpec::flag('1', "the site's second flag"),
        OptionSpec::flag('2', "the site's third flag"),
        OptionSpec::flag('3', "the site's fourth flag"),
        OptionSpec::flag('x', "clear all flags, then set those given"),
        OptionSpec::flag('t', "toggle the flags given instead of setting them"),
        OptionSpec::flag('v', "tell what is done"),
    ],
    operands: Operands { synopsis: "user@domain", min: 1, max: Some(1) },
    variables: variables!(POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET),
    controls: controls!(),
    exits: EXITS,
    description:
        "vmoduser changes what the options name and nothing else. A reserved account (postmaster, abuse, \
...) cannot be made inactive. Passwords are changed with vpasswd.

When all is done, the program LIBEXECDIR/vmoduser (or POST_HANDLE) runs with the arguments of vmoduser.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

const FLAGS: [(&str, ServiceFlags); 14] = [
    ("u", ServiceFlags::NO_DIALUP),
    ("d", ServiceFlags::NO_PASSWORD_CHANGE),
    ("p", ServiceFlags::NO_POP),
    ("s", ServiceFlags::NO_SMTP),
    ("w", ServiceFlags::NO_WEBMAIL),
    ("i", ServiceFlags::NO_IMAP),
    ("b", ServiceFlags::BOUNCE_MAIL),
    ("r", ServiceFlags::NO_RELAY),
    ("a", ServiceFlags::ADMIN),
    ("o", ServiceFlags::OVERRIDE),
    ("0", ServiceFlags::USER0),
    ("1", ServiceFlags::USER1),
    ("2", ServiceFlags::USER2),
    ("3", ServiceFlags::USER3),
];

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let given = context.address(context.operand(0))?;
    let (domain, address) = context.resolve(&given)?;
    if context.parsed.in_order().all(|(option, _)| option == "v" || option == "t") {
        return Err(Failure::refused("options", "nothing to change was given"));
    }
    let absent = || Failure::Absent(format!("{address}: no such account"));
    let before = context.accounts.store().account(&address)?.ok_or_else(absent)?;
    let after = changed(context, before.clone())?;
    after.check()?;
    if after != before && !context.accounts.store().update(&after)? {
        return Err(absent());
    }
    after::account_changed(context, &address);
    after::handle(context, domain.ids, &context.invocation.arguments)
}

fn changed(context: &Context<'_>, mut account: Account) -> Result<Account, Failure> {
    if context.parsed.flag("n") {
        account.active = !account.active;
    }
    if let Some(text) = context.option("c") {
        let text = std::str::from_utf8(text).map_err(|_| Failure::refused("option -c", "expected UTF-8"))?;
        account.gecos = text.to_owned();
    }
    if let Some(text) = context.option("q") {
        account.quota = quota(account.quota, text)?;
    }
    let given = FLAGS.iter().filter(|(letter, _)| context.parsed.flag(letter));
    let given = given.fold(ServiceFlags::NONE, |all, (_, flag)| all | *flag);
    if context.parsed.flag("x") {
        account.flags = ServiceFlags::NONE;
    }
    account.flags = if context.parsed.flag("t") {
        ServiceFlags::from_bits(account.flags.bits() ^ given.bits())
    } else {
        account.flags | given
    };
    Ok(account)
}

/// The quota given, or the old one with bytes added or taken; an unlimited one stays so.
fn quota(old: Quota, text: &[u8]) -> Result<Quota, Failure> {
    let by = match text {
        [b'+' | b'-', rest @ ..] => parse_quota(rest)?.bytes.unwrap_or(0),
        _ => return Ok(parse_quota(text)?),
    };
    let bytes = match old.bytes {
        None => None,
        Some(bytes) if text[0] == b'+' => Some(bytes.saturating_add(by)),
        // Nothing left would read as no limit.
        Some(bytes) if bytes <= by => {
            return Err(Failure::refused("option -q", "nothing of the quota would be left"));
        }
        Some(bytes) => Some(bytes - by),
    };
    // Through its text once more: the column has an end.
    Ok(parse_quota(Quota { bytes, ..old }.to_string().as_bytes())?)
}
