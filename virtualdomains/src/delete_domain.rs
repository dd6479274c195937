//! vdeldomain: a domain and everything in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use accounts::Domain;
use program::{Exit, Invocation, Operands, OptionSpec, Place, Program, Spec};

use crate::context::{Context, EXITS, Failure, run};
use crate::settings::{controls, variables};
use crate::tree::Dir;
use crate::{after, homes};

static SPEC: Spec = Spec {
    name: "vdeldomain",
    summary: "remove a virtual mail domain with its accounts and mail",
    section: 8,
    place: Place::Bin,
    options: &[OptionSpec::flag('v', "tell what is done")],
    operands: Operands { synopsis: "domain", min: 1, max: Some(1) },
    variables: variables!(BASE_PATH, POST_HANDLE, INLOOKUP_SOCKET, NSSD_SOCKET, QMAIL_SEND_SERVICE),
    controls: controls!(VIRTUALDOMAINS, RCPTHOSTS, MORERCPTHOSTS, CHKRCPTDOMAINS),
    exits: EXITS,
    description: "vdeldomain removes the domain from the control files and users/assign, its accounts, aliases and \
limits from the store, the homes of its accounts and the domain directory, after the same for its alias domains. \
Mail stops being accepted first. Of an alias domain only the alias is removed. Interrupted, it can be run again.

When all is done, the program LIBEXECDIR/vdeldomain (or POST_HANDLE) runs with the domain as argument.",
    usage_exit: 100,
};

/// The program.
pub const PROGRAM: Program = Program { spec: &SPEC, main };

fn main(invocation: &Invocation) -> Exit {
    run(invocation, body)
}

fn body(context: &mut Context<'_>) -> Result<Exit, Failure> {
    let domain = context.domain(context.operand(0))?;
    let aliases: Vec<Domain> = if domain.is_alias() {
        Vec::new()
    } else {
        let all = context.accounts.domains().all()?;
        all.into_iter().filter(|d| d.is_alias() && d.real == domain.name).collect()
    };
    for alias in &aliases {
        context.tell(format!("alias domain {}", alias.name));
        remove_alias(context, alias)?;
    }
    if domain.is_alias() {
        remove_alias(context, &domain)?;
    } else {
        remove(context, &domain)?;
    }
    after::domain_changed(context, &domain.name);
    after::handle(context, domain.ids, &[after::argument(&domain.name)])
}

fn remove_alias(context: &Context<'_>, alias: &Domain) -> Result<(), Failure> {
    context.editor().remove(&alias.name)?;
    remove_entry(&alias.dir)?;
    after::domain_changed(context, &alias.name);
    Ok(())
}

fn remove(context: &mut Context<'_>, domain: &Domain) -> Result<(), Failure> {
    // While users/assign has the domain, this command can be run again. Without virtualdomains and
    // rcpthosts nothing new arrives meanwhile.
    context.tell("control files");
    context.editor().close(&domain.name)?;
    context.tell("homes");
    let own = homes::base(context, domain, None)?;
    let mut bases = BTreeSet::new();
    let mut after = None;
    loop {
        let page = context.accounts.store().list(Some(&domain.name), after.as_ref(), 500)?;
        for account in &page {
            // BASE/BUCKET/DOMAIN/USER
            if let Some(base) = account.home.ancestors().nth(3) {
                bases.insert(base.to_owned());
            }
            match homes::remove(&account.home, &account.address) {
                Err(Failure::Refused(why)) => context.warn(why),
                other => drop(other?),
            }
        }
        after = page.last().map(|a| a.address.clone());
        if page.len() < 500 {
            break;
        }
    }
    // Leftovers of accounts removed before; below the bases of other accounts, only what is empty.
    homes::remove_domain(&own, domain.name.as_str(), true)?;
    bases.remove(own.path());
    for base in bases {
        homes::remove_domain(&homes::Base::named_by_rows(base), domain.name.as_str(), false)?;
    }
    context.tell("store");
    let removed = context.accounts.store().delete_domain(&domain.name)?;
    context.tell(format!("{removed} accounts removed"));
    context.tell("users/assign");
    context.editor().remove(&domain.name)?;
    context.tell("domain directory");
    remove_entry(&domain.dir)
}

/// Removes a directory tree or a link by the entry in its parent directory.
fn remove_entry(path: &Path) -> Result<(), Failure> {
    let fail = |e: io::Error| Failure::step(path.display(), e);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::refused(path.display(), "not a domain directory; correct users/assign"));
    };
    if parent.file_name() != Some(OsStr::new("domains")) {
        let why = "not below a directory named domains; remove it by hand";
        return Err(Failure::refused(PathBuf::from(path).display(), why));
    }
    match Dir::open_entry(parent) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.and_then(|d| d.remove(name)).map(|_| ()).map_err(fail),
    }
}
