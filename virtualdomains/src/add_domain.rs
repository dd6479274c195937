//! vadddomain: a domain, its files, its postmaster.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use accounts::{
    Account, Added, Address, Domain, DomainName, Event, Quota, Service, UnixIds, create_store, parse_quota,
};
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};
use unix::ids;

use crate::context::{Context, EXITS, Failure, run};
use crate::password::password_options;
use crate::settings::{controls, variables};
use crate::tree::Dir;
use crate::undo::Undo;
use crate::{after, homes, password};

static SPEC: Spec = Spec {
    name: "vadddomain",
    summary: "add a virtual mail domain",
    section: 8,
    place: Place::Bin,
    options: password_options![
        OptionSpec::value('u', "user", "the domain belongs to this system user: ids, and its home as base of the domain directory"),
        OptionSpec::value('i', "uid", "user id of the domain (default: that of user indimail)"),
        OptionSpec::value('g', "gid", "group id of the domain (default: that of group indimail)"),
        OptionSpec::value('d', "dir", "the domain directory is DIR/domains/DOMAIN (default: below DOMAINDIR)"),
        OptionSpec::value('B', "base", "base of the homes of this domain (default: BASE_PATH)"),
        OptionSpec::value('q', "quota", "quota of the postmaster: BYTES[k|M|G][S][,COUNTC] or NOQUOTA (default NOQUOTA)"),
        OptionSpec::value('E', "target", "mail for unknown users goes to this address or /Maildir/ (default: it bounces)"),
        OptionSpec::flag('R', "list the domain in the control file chkrcptdomains"),
    ],
    operands: Operands { synopsis: "domain [password]", min: 1, max: Some(2) },
    variables: variables!(BASE_PATH, PASSWORD_HASH, POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET, QMAIL_SEND_SERVICE),
    controls: controls!(HASH_METHOD, LOCALS, VIRTUALDOMAINS, RCPTHOSTS, MORERCPTHOSTS, CHKRCPTDOMAINS),
    exits: EXITS,
    description: "vadddomain makes the domain directory with .qmail-default, enters the domain in users/assign, \
virtualdomains and rcpthosts (or morercpthosts after 50 domains), takes it out of locals, and adds the account \
postmaster and the aliases abuse and mailer-daemon. When a step fails, everything before it is taken back.

The password of the postmaster is asked for on the terminal unless --password-fd or -r is given. A password on the \
command line can be seen by everybody on this host.

When all is done, the program LIBEXECDIR/vadddomain (or POST_HANDLE) runs with the arguments of vadddomain, the \
password left out, and its exit code is that of vadddomain.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

/// The domain to be made.
struct Plan {
    name: DomainName,
    ids: UnixIds,
    /// Directory above the domain directory.
    parent: PathBuf,
    base: Option<PathBuf>,
    default_line: String,
    quota: Quota,
}

impl Plan {
    fn dir(&self) -> PathBuf {
        self.parent.join(self.name.as_str())
    }
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let plan = plan(context)?;
    let postmaster = Address::new(b"postmaster", plan.name.as_bytes())?;
    let new = password::new(context, 1, &postmaster.to_string(), None)?;
    let mut undo = Undo::default();
    let result = make(context, &plan, &postmaster, &new, &mut undo);
    undo.finish(context, result)?;
    new.show();
    after::domain_changed(context, &plan.name);
    let arguments = context.arguments_without_password(1);
    after::handle(context, plan.ids, &arguments)
}

fn plan(context: &Context<'_>) -> Result<Plan, Failure> {
    let name = context.new_domain(context.operand(0))?;
    let (ids, home) = owner(context)?;
    let parent = match context.option("d") {
        Some(dir) => PathBuf::from(OsStr::from_bytes(dir)),
        None => home.unwrap_or_else(|| context.settings.domain_dir.clone()),
    };
    if !parent.is_absolute() {
        return Err(Failure::refused("option -d", "expected an absolute path"));
    }
    let base = context.option("B").map(|b| PathBuf::from(OsStr::from_bytes(b)));
    if base.as_ref().is_some_and(|b| !b.is_absolute()) {
        return Err(Failure::refused("option -B", "expected an absolute path"));
    }
    let quota = context.option("q").map_or(Ok(Quota::NONE), parse_quota)?;
    let parent = parent.join("domains");
    Ok(Plan { default_line: default_line(context)?, name, ids, parent, base, quota })
}

/// Ids of the domain, and the home of the system user it belongs to.
fn owner(context: &Context<'_>) -> Result<(UnixIds, Option<PathBuf>), Failure> {
    let (mut ids, mut home) = (None, None);
    if let Some(user) = context.option("u") {
        let user = String::from_utf8_lossy(user).into_owned();
        let found = ids::user(&user).map_err(|e| Failure::step(&user, e))?;
        let found = found.ok_or_else(|| Failure::refused("option -u", format!("there is no user {user}")))?;
        ids = Some(UnixIds { uid: found.uid.as_raw(), gid: found.gid.as_raw() });
        home = Some(found.home);
    }
    let mut ids = match (ids, context.number("i")?, context.number("g")?) {
        (None, Some(uid), Some(gid)) => UnixIds { uid, gid },
        (Some(ids), uid, gid) => UnixIds { uid: uid.unwrap_or(ids.uid), gid: gid.unwrap_or(ids.gid) },
        (None, uid, gid) => {
            let indimail = context.indimail()?;
            UnixIds { uid: uid.unwrap_or(indimail.uid), gid: gid.unwrap_or(indimail.gid) }
        }
    };
    if context.roles.is_single_user() {
        let own = context.indimail()?;
        if ids != own
            && (context.option("u").is_some()
                || context.option("i").is_some()
                || context.option("g").is_some())
        {
            return Err(Failure::refused(
                "options -u, -i, -g",
                "only root can give a domain to another user or group",
            ));
        }
        ids = own;
    } else if ids.uid == 0 {
        return Err(Failure::refused("user id 0", "no mail domain may belong to root; use -i, -g or -u"));
    }
    Ok((ids, home))
}

fn default_line(context: &Context<'_>) -> Result<String, Failure> {
    let target = match context.option("E") {
        None => "bounce-no-mailbox".to_owned(),
        Some(path) if path.starts_with(b"/") => {
            let text = std::str::from_utf8(path).ok().filter(|t| !t.contains(['\'', '\n', '\0']));
            let text =
                text.ok_or_else(|| Failure::refused("option -E", "the path has a quote or is not UTF-8"))?;
            format!("'{text}'")
        }
        Some(address) => Address::parse(address)?.to_string(),
    };
    // An address may hold a quote of its own; a shell reads this line.
    let target = if target.contains('@') { format!("'{}'", target.replace('\'', "'\\''")) } else { target };
    Ok(format!("| {} '' {target}\n", context.invocation.layout.sbin("vdelivermail").display()))
}

fn make<'a>(
    context: &mut Context<'_>,
    plan: &'a Plan,
    postmaster: &'a Address,
    new: &password::New,
    undo: &mut Undo<'a>,
) -> Result<(), Failure> {
    let shared = context.indimail()?;
    create_store(&context.settings.accounts.store, context.owner(shared))?;
    context.tell(format!("{}: domain directory", plan.dir().display()));
    directory(context, plan, undo)?;
    context.tell("users/assign and control files");
    let name = plan.name.clone();
    undo.note("users/assign and control files", move |c| Ok(c.editor().remove(&name)?));
    context.editor().add(&plan.name, plan.ids, &plan.dir())?;
    if context.parsed.flag("R") {
        context.editor().check_recipients(&plan.name)?;
    }
    context.tell("account postmaster, aliases abuse and mailer-daemon");
    // Rows of a domain that was here before would give its accounts back.
    let left = context.accounts.store().list(Some(&plan.name), None, 1)?;
    if !left.is_empty() {
        return Err(Failure::refused(
            &plan.name,
            "the store still has accounts of this domain; remove them with vdeldomain first",
        ));
    }
    undo.note("rows of the store", move |c| Ok(c.accounts.store().delete_domain(&plan.name).map(|_| ())?));
    let domain = Domain { name: plan.name.clone(), real: plan.name.clone(), dir: plan.dir(), ids: plan.ids };
    let base = homes::base(context, &domain, None)?;
    let home = homes::path(base.path(), postmaster);
    let mut account = Account::new(postmaster.clone(), home);
    account.gecos = "Postmaster".to_owned();
    account.password = new.hash.clone();
    account.scram = new.scram.clone();
    account.quota = plan.quota;
    account.check()?;
    let made = homes::make(context, &base, postmaster, plan.ids, plan.ids, false);
    undo.note("directories above the homes", move |_| homes::remove_domain(&base, plan.name.as_str(), false));
    made?;
    if context.accounts.store().insert(&account)? != Added::Done {
        return Err(Failure::refused(postmaster, "the account exists already"));
    }
    let at = i64::try_from(unix::clock::unix_seconds()).unwrap_or(i64::MAX);
    let event = Event { service: Service::created(), remote_ip: String::new(), at };
    context.accounts.store().note(postmaster, &event)?;
    for alias in ["abuse", "mailer-daemon"] {
        let alias = Address::new(alias.as_bytes(), plan.name.as_bytes())?;
        context.accounts.store().add_alias(&alias, format!("&{postmaster}").as_bytes())?;
    }
    Ok(())
}

/// The domain directory and what is in it.
fn directory<'a>(context: &mut Context<'_>, plan: &'a Plan, undo: &mut Undo<'a>) -> Result<(), Failure> {
    let path = plan.dir();
    let fail = |e: io::Error| Failure::step(path.display(), e);
    let shared = context.owner(context.indimail()?);
    let above = plan.parent.parent().unwrap_or(Path::new("/"));
    let above = Dir::open(above).map_err(|e| Failure::step(above.display(), e))?;
    let (parent, _) = above.child(OsStr::new("domains"), 0o755, shared).map_err(fail)?;
    let owner = context.owner(plan.ids);
    let name = OsStr::new(plan.name.as_str());
    // The lookup daemons, which may run under another user, look for .domain_limits in it.
    let (dir, made) = parent.child(name, 0o751, owner).map_err(fail)?;
    if !made {
        return Err(Failure::refused(
            path.display(),
            "the domain directory exists already; move or remove it first",
        ));
    }
    undo.note("domain directory", move |_| {
        let fail = |e: io::Error| Failure::step(plan.dir().display(), e);
        Dir::open_entry(&plan.parent)
            .and_then(|d| d.remove(OsStr::new(plan.name.as_str())))
            .map(|_| ())
            .map_err(fail)
    });
    dir.child(OsStr::new("bulk_mail"), 0o750, owner).map_err(fail)?;
    let file = |name: &str, text: &[u8], mode| dir.write_new(OsStr::new(name), text, mode).map_err(fail);
    file(".qmail-default", plan.default_line.as_bytes(), 0o600)?;
    if let Some(base) = &plan.base {
        // Not the domain's user's: what it names is believed as an administrator's word.
        let line = [base.as_os_str().as_bytes(), b"\n"].concat();
        dir.write_new_of_own(OsStr::new(".base_path"), &line, 0o644).map_err(fail)?;
    }
    if let Some(scheme) = context.option("h") {
        file("hash_method", &[scheme, b"\n"].concat(), 0o644)?;
    }
    Ok(())
}
