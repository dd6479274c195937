//! vadduser: one account.

use accounts::{Account, Added, Address, Domain, Event, Quota, Service, UnixIds, parse_quota};
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::context::{Context, EXITS, Failure, run};
use crate::password::{New, password_options};
use crate::settings::{controls, variables};
use crate::undo::Undo;
use crate::{after, homes, password};

static SPEC: Spec = Spec {
    name: "vadduser",
    summary: "add a mail account",
    section: 1,
    place: Place::Bin,
    options: password_options![
        OptionSpec::flag('i', "the account is inactive"),
        OptionSpec::flag('d', "make the home and the Maildir now (default: at the first delivery or login)"),
        OptionSpec::value('B', "base", "base of the home (default: .base_path of the domain, BASE_PATH)"),
        OptionSpec::value('c', "text", "full name or other text (default: the user name)"),
        OptionSpec::value('q', "quota", "BYTES[k|M|G][S][,COUNTC] or NOQUOTA (default: that of the domain's limits, else NOQUOTA)"),
        OptionSpec::long_value("uid", "n", "a Unix user id of its own, for logins; with --gid; implies -d (default: it shares that of the domain)"),
        OptionSpec::long_value("gid", "n", "the Unix group id that goes with --uid"),
    ],
    operands: Operands { synopsis: "user@domain [password]", min: 1, max: Some(2) },
    variables: variables!(BASE_PATH, PASSWORD_HASH, POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET),
    controls: controls!(HASH_METHOD),
    exits: EXITS,
    description: "vadduser adds an account to a domain made by vadddomain. An alias domain stands for its real one.

The password is asked for on the terminal unless --password-fd or -r is given. A password on the command line can \
be seen by everybody on this host.

When the home cannot be made, the account is taken back. When all is done, the program LIBEXECDIR/vadduser (or \
POST_HANDLE) runs as the domain's user with the address as argument, and its exit code is that of vadduser.",
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
    if context.accounts.store().account(&address)?.is_some() {
        return Err(Failure::refused(&address, "the account exists already"));
    }
    if !context.accounts.store().aliases(&address)?.is_empty() {
        context.warn(format!("{address}: there is an alias of this name too; mail goes to the account"));
    }
    let own_ids = own_ids(context)?;
    let quota = quota(context, &domain)?;
    let base = homes::base(context, &domain, context.option("B"))?;
    let method = homes::domain_file(&domain, "hash_method")?;
    let new = password::new(context, 1, &address.to_string(), method.as_deref())?;
    let mut account = account(context, &address, &new)?;
    account.home = homes::path(base.path(), &address);
    account.own_ids = own_ids;
    account.quota = quota;
    account.check()?;

    let mut undo = Undo::default();
    let result = make(context, &account, &domain, &base, &mut undo);
    undo.finish(context, result)?;
    new.show();
    after::account_changed(context, &address);
    after::handle(context, domain.ids, &[after::argument(&address)])
}

fn account(context: &Context<'_>, address: &Address, new: &New) -> Result<Account, Failure> {
    let mut account = Account::new(address.clone(), "/".into());
    account.active = !context.parsed.flag("i");
    account.password = new.hash.clone();
    account.scram = new.scram.clone();
    account.gecos = match context.option("c") {
        None => address.local().to_owned(),
        Some(text) => {
            std::str::from_utf8(text).map_err(|_| Failure::refused("option -c", "expected UTF-8"))?.to_owned()
        }
    };
    Ok(account)
}

fn own_ids(context: &Context<'_>) -> Result<Option<UnixIds>, Failure> {
    match (context.number("uid")?, context.number("gid")?) {
        (None, None) => Ok(None),
        (Some(uid), Some(gid)) if uid > 0 && gid > 0 && uid < u32::MAX && gid < u32::MAX => {
            if context.roles.is_single_user() {
                return Err(Failure::refused(
                    "option --uid",
                    "only root can give an account a user id of its own",
                ));
            }
            let taken = unix::ids::user_by_uid(nix::unistd::Uid::from_raw(uid))
                .map_err(|e| Failure::step("user id", e))?;
            match taken {
                // With the NSS module active, the name may be that of a mail account; the store knows.
                Some(user) if !user.name.contains('@') => {
                    Err(Failure::refused("option --uid", format!("{uid} is the user id of {}", user.name)))
                }
                _ => Ok(Some(UnixIds { uid, gid })),
            }
        }
        (Some(_), Some(_)) => {
            Err(Failure::refused("options --uid and --gid", "expected a number from 1 to 4294967294"))
        }
        _ => Err(Failure::refused("options --uid and --gid", "one needs the other")),
    }
}

/// The quota given, else the default of the domain's limits where they are in force.
fn quota(context: &mut Context<'_>, domain: &Domain) -> Result<Quota, Failure> {
    if let Some(text) = context.option("q") {
        return Ok(parse_quota(text)?);
    }
    if !domain.has_limits()? {
        return Ok(Quota::NONE);
    }
    let limits = context.accounts.store().limits(domain.real.as_str())?;
    let positive = |n: i64| u64::try_from(n).ok().filter(|&n| n > 0);
    if let Some(limits) = &limits
        && let Some(most) = limits.max_accounts
    {
        let (active, inactive) = context.accounts.store().count(&domain.real)?;
        if i64::try_from(active + inactive).is_ok_and(|n| n >= most) {
            return Err(Failure::refused(&domain.real, format!("the limit of {most} accounts is reached")));
        }
    }
    Ok(limits.map_or(Quota::NONE, |l| Quota {
        bytes: positive(l.default_quota),
        messages: positive(l.default_max_messages),
    }))
}

fn make<'a>(
    context: &mut Context<'_>,
    account: &'a Account,
    domain: &Domain,
    base: &homes::Base,
    undo: &mut Undo<'a>,
) -> Result<(), Failure> {
    let address = &account.address;
    match context.accounts.store().insert(account)? {
        Added::Done => {}
        Added::Exists => return Err(Failure::refused(address, "the account exists already")),
        Added::IdsTaken => return Err(Failure::refused("option --uid", "another account has this user id")),
    }
    undo.note("row of the account", move |c| Ok(c.accounts.store().withdraw(address).map(|_| ())?));
    let ids = account.own_ids.unwrap_or(domain.ids);
    // An account with a user id of its own cannot make its home below the domain's directory later.
    let now = context.parsed.flag("d") || account.own_ids.is_some();
    homes::make(context, base, address, domain.ids, ids, now)?;
    if now {
        undo.note("home directory", move |_| homes::remove(&account.home, address).map(|_| ()));
    }
    let at = i64::try_from(unix::clock::unix_seconds()).unwrap_or(i64::MAX);
    let event = Event { service: Service::created(), remote_ip: String::new(), at };
    Ok(context.accounts.store().note(address, &event)?)
}
